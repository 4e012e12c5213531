using System.Buffers;
using System.Data;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Configuration;

/// <summary>
/// Compares what a tenant has with a document, and makes it so. A plan does all of it too, in a transaction that is rolled back: so it
/// finds what applying would find, by the code of the endpoints of each thing.
/// </summary>
internal sealed class Configurator(
    TriggersDbContext db, SecretProtector protector, IOptions<CapOptions> caps, TimeProvider time, KeyChanges keys)
{
    /// <summary>What there is, as far as the caller may see it.</summary>
    public async Task<ConfigurationView> ReadAsync(Caller caller, CancellationToken cancellationToken)
    {
        await using var transaction = await db.Database.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellationToken);
        var sections = SectionsOf(caller).Where(s => caller.May(s.Reads)).ToDictionary(s => s.Name);
        foreach (var (_, section) in sections)
            await section.FindAsync(toChange: false, cancellationToken);
        return new ConfigurationView
        {
            UsagePlans = Things("usagePlans"),
            Tenant = sections.GetValueOrDefault("tenant")?.Write(),
            EventTypes = Things("eventTypes"),
            Subscriptions = Things("subscriptions"),
            Inboxes = Things("inboxes"),
        };

        Dictionary<string, JsonObject>? Things(string name) =>
            sections.GetValueOrDefault(name)?.Write().ToDictionary(t => t.Key, t => t.Value!.AsObject());
    }

    /// <summary>Finds what a document changes, and changes it, all or nothing.</summary>
    /// <param name="caller">Whose tenant.</param>
    /// <param name="json">The document.</param>
    /// <param name="prune">Whether what it does not name is deleted.</param>
    /// <param name="planId">The plan that is to be followed; null for any.</param>
    /// <param name="apply">Whether it is to stay.</param>
    /// <param name="deadline">Of the request; each change has its time.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="ApiException">
    /// What the endpoints of things refuse, with its place in the document; or <c>plan_outdated</c>.
    /// </exception>
    public async Task<ConfigurationPlan> RunAsync(
        Caller caller, ReadOnlyMemory<byte> json, bool prune, string? planId, bool apply, Deadline deadline,
        CancellationToken cancellationToken)
    {
        using var document = Body.ParseDocument(json);
        var root = document.RootElement;
        if (root.ValueKind != JsonValueKind.Object)
            throw ApiException.Invalid("", "The body must be an object.");
        var sections = SectionsOf(caller).Where(s => Says(root, s.Name)).ToArray();
        if (Array.Find(sections, s => !caller.May(s.Reads)) is { } hidden)
            throw Forbidden(hidden, hidden.Reads);

        await using var transaction = (await db.LockTenantAsync(caller.TenantId, cancellationToken))!;
        foreach (var section in sections)
            await section.FindAsync(toChange: true, cancellationToken);
        using var complete = Complete(root, sections);
        Fields.Read<ConfigurationBody>(complete.RootElement, fields =>
        {
            foreach (var section in sections)
                section.Read(fields);
            // Those that are null are there, and say nothing.
            foreach (var section in SectionsOf(caller))
                _ = fields.Any(section.Name);
            return new() { Secrets = fields.Map("secrets")?.ToDictionary(s => s.Key, s => s.Value!) };
        });

        var steps = sections
            .SelectMany(s => s.Steps(complete.RootElement.GetProperty(s.Name), prune).Select(step => (Section: s, Step: step)))
            // What goes makes room for what comes.
            .OrderBy(s => s.Step.Change.Action != ChangeAction.Delete).ToArray();
        if (Array.Find(steps, s => !caller.May(s.Section.Writes)).Section is { } closed)
            throw Forbidden(closed, closed.Writes);
        var id = IdOf(sections, steps.Select(s => s.Step.Change));
        if (planId is not null && planId != id)
            throw new ApiException(ErrorCodes.PlanOutdated, "Something was changed since, or the document says otherwise: plan again.");

        var changes = new List<ConfigurationChange>();
        foreach (var (section, step) in steps)
        {
            deadline.Restart();
            try
            {
                changes.Add(step.Change with { Secret = await step.RunAsync(cancellationToken) });
            }
            catch (ApiException e)
            {
                throw e.Under(
                    Fields.Pointer(section.Name) + (step.Change.Name is { } name ? Fields.Pointer(name) : ""));
            }
        }
        if (!apply)
            return new ConfigurationPlan(id, [.. changes.Select(c => c with { Secret = null })]);
        await transaction.CommitAsync(cancellationToken);
        if (changes.Exists(c => c.Section == "usagePlans"))
            await keys.TellAllAsync();
        else if (changes.Exists(c => c.Section is "tenant" or "eventTypes"))
            await keys.TellAsync(caller.TenantId);
        return new ConfigurationPlan(id, changes);
    }

    private Section[] SectionsOf(Caller caller)
    {
        var at = new Workspace(caller, db, protector, caps.Value, time);
        return
        [
            new UsagePlansSection(at), new TenantSection(at), new EventTypesSection(at), new SubscriptionsSection(at),
            new InboxesSection(at),
        ];
    }

    /// <summary>The document with the names of its things in them, and with secrets in the place of references.</summary>
    private static JsonDocument Complete(JsonElement root, Section[] sections)
    {
        var errors = new FieldErrors("The body has mistakes; see errors.");
        var json = new ArrayBufferWriter<byte>();
        using var writer = new Utf8JsonWriter(json, new JsonWriterOptions { SkipValidation = true });
        try
        {
            var secrets = new Secrets(root, errors);
            writer.WriteStartObject();
            foreach (var member in root.EnumerateObject())
            {
                writer.WritePropertyName(member.Name);
                var section = Array.Find(sections, s => s.Name == member.Name);
                if (section is null or TenantSection || member.Value.ValueKind != JsonValueKind.Object)
                {
                    member.Value.WriteTo(writer);
                    continue;
                }
                writer.WriteStartObject();
                foreach (var thing in member.Value.EnumerateObject())
                {
                    writer.WritePropertyName(thing.Name);
                    if (thing.Value.ValueKind == JsonValueKind.Object)
                        section.Complete(thing.Name, thing.Value, secrets, writer);
                    else
                        thing.Value.WriteTo(writer);
                }
                writer.WriteEndObject();
            }
            writer.WriteEndObject();
        }
        catch (InvalidOperationException)
        {
            throw HalfOfAPair();
        }
        errors.ThrowIfAny();
        writer.Flush();
        return Body.ParseDocument(json.WrittenMemory);
    }

    private static bool Says(JsonElement root, string section)
    {
        try
        {
            return root.TryGetProperty(section, out var value) && value.ValueKind != JsonValueKind.Null;
        }
        catch (InvalidOperationException)
        {
            throw HalfOfAPair();
        }
    }

    private static ApiException HalfOfAPair() => ApiException.Invalid("", "There is half of a surrogate pair in it.");

    private static string IdOf(IEnumerable<Section> sections, IEnumerable<ConfigurationChange> changes)
    {
        var text = string.Join('\n', sections.Select(s => $"{s.Name} {s.Stamp}")) + JsonSerializer.Serialize(changes, Http.Json.Options);
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(..16));
    }

    private static ApiException Forbidden(Section section, string scope) => new ApiException(
        ErrorCodes.Forbidden, $"For {section.Name} this needs a key with the scope {scope}.").Under(Fields.Pointer(section.Name));
}
