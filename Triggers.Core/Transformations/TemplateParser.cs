using System.Text.Encodings.Web;
using System.Text.RegularExpressions;
using Fluid;
using Fluid.Ast;
using Fluid.Ast.BinaryExpressions;
using Fluid.Values;
using Parlot.Fluent;

namespace Triggers.Core.Transformations;

/// <summary>
/// Reads Liquid, and remembers where each tag is, so that what goes wrong later has a place. The tags that include other templates are not
/// there; those that make much of little (ranges, captures, loops, searches) are counted as they run.
/// </summary>
internal sealed partial class TemplateParser : FluidParser
{
    /// <summary>The most blocks, and the most brackets. Each may be within another, and reading them is recursive.</summary>
    public const int MaxNested = 200;

    private static readonly string[] s_tags =
        ["assign", "capture", "case", "comment", "#", "if", "unless", "for", "break", "continue", "raw"];

    public TemplateParser() : base(new FluidParserOptions())
    {
        foreach (var name in RegisteredTags.Keys.Except(s_tags).ToArray())
            RegisteredTags.Remove(name);
        foreach (var name in s_tags)
            RegisteredTags[name] = new PlacedParser<Statement>(RegisteredTags[name], (tag, line, column) => new Tag(tag, line, column));
        FilterExpression.Parser =
            new PlacedParser<Expression>(FilterExpression.Parser!, (value, line, column) => new PlacedExpression(value, line, column));
    }

    /// <summary>Reads a template.</summary>
    /// <exception cref="TemplateException">It has a mistake.</exception>
    public IFluidTemplate Read(string template)
    {
        if (Blocks().Count(template) > MaxNested || template.AsSpan().Count('[') + template.AsSpan().Count('(') > MaxNested)
            throw new TemplateException($"Has more than {MaxNested} blocks, or more than {MaxNested} brackets.");
        if (!this.TryParse(template, out var read, out var error))
        {
            // "What is wrong at (3:7)", and the line's text behind it.
            if (Place().Match(error ?? "") is not { Success: true } place)
                throw new TemplateException("Can't be read: " + error);
            throw new TemplateException(
                error![..place.Index].TrimEnd('.', ' ') + ".", int.Parse(place.Groups[1].Value), int.Parse(place.Groups[2].Value));
        }
        return new Bounds().VisitTemplate(read);
    }

    [GeneratedRegex(@"\{%-?\s*(if|unless|for|case|capture)\b", RegexOptions.CultureInvariant)]
    private static partial Regex Blocks();

    [GeneratedRegex(@" at \((\d+):(\d+)\)", RegexOptions.CultureInvariant)]
    private static partial Regex Place();

    private static TemplateRun Run(TemplateContext context) => (TemplateRun)context;

    private static Exception At(Exception e, TemplateContext context, int line, int column) => e switch
    {
        TemplateException { Line: > 0 } => e,
        TemplateException own => new TemplateException(own.Problem, line, column),
        // Of its steps, the library speaks as of recursion.
        InvalidOperationException when e.Message.StartsWith("The maximum ", StringComparison.Ordinal) =>
            new TemplateException($"Runs more than {Run(context).Limits.Statements} statements.", line, column),
        _ => new TemplateException(e.Message, line, column),
    };

    /// <summary>Knows where what it reads begins.</summary>
    private sealed class PlacedParser<T>(Parser<T> inner, Func<T, int, int, T> place) : Parser<T>
    {
        public override bool Parse(ParseContext context, ref Parlot.ParseResult<T> result)
        {
            var position = context.Scanner.Cursor.Position;
            if (!inner.Parse(context, ref result))
                return false;
            result.Set(result.Start, result.End, place(result.Value, position.Line, position.Column));
            return true;
        }
    }

    /// <summary>A statement with its place.</summary>
    private sealed class Tag(Statement inner, int line, int column) : Statement
    {
        public override async ValueTask<Completion> WriteToAsync(TextWriter writer, TextEncoder encoder, TemplateContext context)
        {
            try
            {
                Run(context).CheckTime();
                return await inner.WriteToAsync(writer, encoder, context);
            }
            catch (Exception e)
            {
                throw At(e, context, line, column);
            }
        }

        public Tag With(Bounds bounds) => new(bounds.Visit(inner), line, column);
    }

    /// <summary>A value with its place.</summary>
    private sealed class PlacedExpression(Expression inner, int line, int column) : Expression
    {
        public override async ValueTask<FluidValue> EvaluateAsync(TemplateContext context)
        {
            try
            {
                return await inner.EvaluateAsync(context);
            }
            catch (Exception e)
            {
                throw At(e, context, line, column);
            }
        }

        public Exception Place(Exception e, TemplateContext context) => At(e, context, line, column);

        public void EnsureKnown()
        {
            for (var at = inner; at is FilterExpression filter; at = filter.Input)
            {
                if (!TemplateFilters.Has(filter.Name))
                    throw new TemplateException($"There is no filter \"{filter.Name}\".", line, column);
            }
        }

        public PlacedExpression With(Bounds bounds) => new(bounds.Visit(inner), line, column);
    }

    /// <summary>Puts what counts itself in the place of what does not.</summary>
    private sealed class Bounds : AstRewriter
    {
        public override Statement VisitOtherStatement(Statement statement) => statement is Tag tag ? tag.With(this) : statement;

        public override Expression VisitOtherExpression(Expression expression)
        {
            if (expression is not PlacedExpression placed)
                return expression;
            placed.EnsureKnown();
            return placed.With(this);
        }

        protected override Statement VisitOutputStatement(OutputStatement output) => new Output(Visit(output.Expression));

        protected override Statement VisitCaptureStatement(CaptureStatement capture) =>
            new Capture(capture.Identifier, [.. capture.Statements.Select(Visit)]);

        protected override Statement VisitForStatement(ForStatement loop) => new ForStatement(
            [.. loop.Statements.Select(Visit)], loop.Identifier, new Counted(Visit(loop.Source)), Visit(loop.Limit), Visit(loop.Offset),
            loop.Reversed, Visit(loop.Else) as ElseStatement);

        protected override Expression VisitRangeExpression(RangeExpression range) => new BoundedRange(Visit(range.From), Visit(range.To));

        protected override Expression VisitContainsBinaryExpression(ContainsBinaryExpression contains) =>
            new Search(Visit(contains.Left), Visit(contains.Right));

        protected override Expression VisitEqualBinaryExpression(EqualBinaryExpression equal) =>
            new EqualBinaryExpression(new Counted(Visit(equal.Left)), Visit(equal.Right));

        protected override Expression VisitNotEqualBinaryExpression(NotEqualBinaryExpression notEqual) =>
            new NotEqualBinaryExpression(new Counted(Visit(notEqual.Left)), Visit(notEqual.Right));
    }

    /// <summary>Writes a value: lists and objects as JSON.</summary>
    private sealed class Output(Expression value) : Statement
    {
        public override async ValueTask<Completion> WriteToAsync(TextWriter writer, TextEncoder encoder, TemplateContext context)
        {
            context.IncrementSteps();
            var written = Run(context).Work(await value.EvaluateAsync(context));
            try
            {
                if (written is ArrayValue or DictionaryValue)
                    writer.Write(encoder.Encode(JsonValues.ToJson(written)));
                else
                    await written.WriteToAsync(writer, encoder, context.CultureInfo);
            }
            catch (Exception e) when (value is PlacedExpression placed)
            {
                throw placed.Place(e, context);
            }
            return Completion.Normal;
        }
    }

    private sealed class Capture(string name, IReadOnlyList<Statement> statements) : Statement
    {
        public override async ValueTask<Completion> WriteToAsync(TextWriter writer, TextEncoder encoder, TemplateContext context)
        {
            await using var captured = new BoundedWriter(Run(context));
            var completion = await statements.RenderStatementsAsync(captured, encoder, context);
            context.SetValue(name, Run(context).Work(new StringValue(captured.ToString(), encode: false)));
            return completion;
        }
    }

    private sealed class Counted(Expression inner) : Expression
    {
        public override async ValueTask<FluidValue> EvaluateAsync(TemplateContext context) =>
            Run(context).Work(await inner.EvaluateAsync(context));
    }

    private sealed class BoundedRange(Expression from, Expression to) : Expression
    {
        public override async ValueTask<FluidValue> EvaluateAsync(TemplateContext context)
        {
            var start = Convert.ToInt64((await from.EvaluateAsync(context)).ToNumberValue());
            var count = Math.Max(0, Convert.ToInt64((await to.EvaluateAsync(context)).ToNumberValue()) - start + 1);
            if (count > Run(context).Limits.Statements)
                throw new TemplateException($"A range has at most {Run(context).Limits.Statements} numbers.");
            Run(context).Work(count);
            return new ArrayValue([.. Enumerable.Range(0, (int)count).Select(i => NumberValue.Create(start + i))]);
        }
    }

    private sealed class Search(Expression left, Expression right) : Expression
    {
        public override async ValueTask<FluidValue> EvaluateAsync(TemplateContext context)
        {
            var (within, sought) = (await left.EvaluateAsync(context), await right.EvaluateAsync(context));
            if (within is StringValue)
                TemplateFilters.EnsureShort(sought.ToStringValue().Length, Run(context));
            Run(context).Work(within);
            return BooleanValue.Create(within.Contains(sought));
        }
    }
}
