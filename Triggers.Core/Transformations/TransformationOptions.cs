using System.ComponentModel.DataAnnotations;

namespace Triggers.Core.Transformations;

/// <summary>
/// Settings <c>Transformations:*</c>: how far a run of a template may go. Both services have them, so that a preview ends as an attempt
/// does.
/// </summary>
internal sealed class TransformationOptions
{
    /// <summary>The most statements and turns of loops, and the most numbers of a range.</summary>
    [Range(100, 10_000_000, ErrorMessage = "Transformations:Statements must be between 100 and 10000000.")]
    public int Statements { get; set; } = 50_000;

    /// <summary>
    /// The longest text or list, and the longest body, in characters and items. An event with more than half as many bytes of data may have
    /// twice those.
    /// </summary>
    [Range(1024, 64 * 1024 * 1024, ErrorMessage = "Transformations:TextLength must be between 1 Ki and 64 Mi characters.")]
    public int TextLength { get; set; } = 256 * 1024;

    /// <summary>
    /// All that is read and made by filters, captures and comparisons, in characters and items; 16 times the longest text where that is
    /// more.
    /// </summary>
    [Range(16 * 1024, 1024 * 1024 * 1024, ErrorMessage = "Transformations:Work must be between 16 Ki and 1 Gi characters.")]
    public int Work { get; set; } = 16 * 1024 * 1024;

    /// <summary>The longest text that is looked for in another, in characters.</summary>
    [Range(1, 100_000, ErrorMessage = "Transformations:SoughtLength must be between 1 and 100000 characters.")]
    public int SoughtLength { get; set; } = 1_000;

    /// <summary>
    /// How long a run may take. The others are counted, and come to the same end each time; this stops what they don't catch.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:00.01", "00:00:10", ErrorMessage = "Transformations:Time must be between 10 ms and 10 s.")]
    public TimeSpan Time { get; set; } = TimeSpan.FromSeconds(1);
}
