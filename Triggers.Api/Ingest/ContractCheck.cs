using System.Diagnostics;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.EventTypes;
using Triggers.Api.Schemas;
using Triggers.Api.Telemetry;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Ingest;

/// <summary>Holds the events of a request to what their tenant says of their types, before they are appended.</summary>
internal sealed class ContractCheck(Contracts contracts, ApiMetrics metrics)
{
    // Violations of a request that its trace names.
    private const int MaxTraced = 10;
    private const int MaxPointer = 256;

    /// <summary>Refuses those that are to be refused, and warns of the others. Costs nothing where the tenant has no types.</summary>
    public ValueTask CheckAsync(Caller caller, IReadOnlyList<ParsedEvent> events, CancellationToken cancellationToken) =>
        caller.ContractsVersion == 0 ? ValueTask.CompletedTask : CheckTypedAsync(caller, events, cancellationToken);

    private async ValueTask CheckTypedAsync(Caller caller, IReadOnlyList<ParsedEvent> events, CancellationToken cancellationToken)
    {
        var tenant = await contracts.OfAsync(caller, cancellationToken);
        // All events of a request share its steps.
        var steps = new Steps(events.Sum(e => (long)e.Data.Length));
        var traced = 0;
        foreach (var e in events)
        {
            if (e.Errors.Count > 0)
                continue;
            if (!tenant.Types.TryGetValue(e.Type, out var contract))
            {
                if (tenant.RefusesUnknown)
                    e.Refuse(ErrorCodes.UnknownEventType, [new FieldError("/type", "The tenant has no such event type.")]);
                continue;
            }
            if (contract.Deprecation is { } deprecation)
                e.Warn([new FieldError("/type", $"Deprecated: {deprecation}")]);
            if (contract.Mode == ContractMode.Off)
                continue;
            FieldError[] found = e.HoldsJson
                ? [.. (await JudgeAsync(contract, e, steps, cancellationToken))
                    .Select(v => new FieldError("/data" + Shorten(v.Pointer), v.Detail))]
                : [new FieldError($"/{e.Attributes!.DataMember}", "The type has a schema, and so is for data that is JSON.")];
            if (found.Length == 0)
                continue;
            metrics.SchemaViolated(contract.Mode);
            if (traced++ < MaxTraced)
                Trace(e.Type, contract, found);
            if (contract.Mode == ContractMode.Enforce)
                e.Refuse(ErrorCodes.SchemaViolation, found);
            else
                e.Warn(found);
        }
    }

    private async ValueTask<IReadOnlyList<FieldError>> JudgeAsync(
        TypeContract contract, ParsedEvent e, Steps steps, CancellationToken cancellationToken)
    {
        try
        {
            var schema = await contracts.SchemaAsync(contract, steps, cancellationToken);
            return schema.Judge(e.Data, steps, FieldErrors.Max);
        }
        catch (StepsExceededException)
        {
            return [new FieldError("", "Can't be judged: the events before it in the request took all the steps that it has.")];
        }
        catch (SchemaRefusedException)
        {
            return [new FieldError("", "Can't be judged: the schema is none that this version of the service takes. Send it again.")];
        }
    }

    // Where, and not what: traces are no place for data.
    private static void Trace(string type, TypeContract contract, FieldError[] violations) =>
        Activity.Current?.AddEvent(new ActivityEvent("triggers.schema_violation", tags: new ActivityTagsCollection
        {
            ["triggers.event_type"] = type,
            ["triggers.schema.version"] = contract.Version,
            ["triggers.schema.mode"] = SnakeCase<ContractMode>.Of(contract.Mode),
            ["triggers.schema.pointers"] = violations.Take(MaxTraced).Select(v => v.Pointer).ToArray(),
        }));

    private static string Shorten(string pointer) => pointer.Length <= MaxPointer ? pointer : pointer[..MaxPointer] + "…";
}
