using System.Text.Encodings.Web;
using Fluid;
using Fluid.Values;

namespace Triggers.Core.Transformations;

/// <summary>A template, read once and run any number of times. To be used on a <see cref="RoomyThread"/> only.</summary>
internal sealed class LiquidTemplate
{
    private static readonly TemplateParser s_parser = new();

    private readonly IFluidTemplate _template;

    /// <exception cref="TemplateException">It has a mistake.</exception>
    public LiquidTemplate(string template)
    {
        try
        {
            _template = s_parser.Read(template);
        }
        catch (Exception e) when (e is not TemplateException)
        {
            throw new TemplateException("Can't be read: " + e.Message);
        }
    }

    /// <summary>What it writes.</summary>
    /// <param name="values">What it sees, by name.</param>
    /// <param name="limits">How far the run may go.</param>
    /// <param name="dataBytes">The length of the event's data, by which it is bounded, too.</param>
    /// <param name="encoder">Encodes what is not written by the template itself.</param>
    /// <exception cref="TemplateException">Something goes wrong, or too far.</exception>
    public string Run(
        IEnumerable<KeyValuePair<string, FluidValue>> values, TransformationOptions limits, int dataBytes, TextEncoder encoder)
    {
        var run = new TemplateRun(limits, dataBytes);
        foreach (var (name, value) in values)
            run.SetValue(name, value);
        using var writer = new BoundedWriter(run);
        try
        {
            // Nothing in a template waits for anything.
            _template.RenderAsync(writer, encoder, run).AsTask().GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is not TemplateException)
        {
            throw new TemplateException(e.Message);
        }
        return writer.ToString();
    }
}
