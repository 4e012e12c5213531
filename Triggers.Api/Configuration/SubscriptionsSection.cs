using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Configuration;

/// <summary>
/// Subscriptions by their names; those without one by their ids, which stand for them in documents when they have one, too. REST hooks
/// belong to who made them, and are in no configuration.
/// </summary>
internal sealed class SubscriptionsSection(Workspace at)
    : Section<SubscriptionBody>("subscriptions", Scopes.SubscriptionsRead, Scopes.SubscriptionsWrite)
{
    private const string Secret = "secret";
    private const string Signatures = "signatures";
    private const string Certificate = "clientCertificate";
    private const string Authentication = "authentication";
    private const string Transformation = "transformation";
    private const string Headers = "headers";

    // Changed member by member, so that what goes must be named.
    private static readonly string[] s_merged = [Headers, "retry"];

    private Dictionary<string, Subscription> _rows = [];
    private Dictionary<Guid, string> _keys = [];

    protected override Thing Least =>
        Describe(SubscriptionsApi.New(new SubscriptionBody { Url = "", EventTypes = [] }, at.Caller.TenantId, at.Protector));

    protected override async Task<Dictionary<string, Thing>> FindAllAsync(bool toChange, CancellationToken cancellationToken)
    {
        var rows = toChange
            ? at.Db.Subscriptions.FromSql(
                $"""
                SELECT * FROM subscriptions
                WHERE tenant_id = {at.Caller.TenantId} AND inbox IS NULL AND deleted_at IS NULL
                    AND (expires_at IS NULL OR expires_at > now())
                ORDER BY id FOR NO KEY UPDATE
                """)
            : SubscriptionsApi.Living(at.Db, at.Caller);
        _rows = (await rows.ToListAsync(cancellationToken)).Where(s => !s.IsHook)
            .ToDictionary(s => s.Name ?? TypeId.Format(TypeId.Subscription, s.Id));
        _keys = _rows.ToDictionary(s => s.Value.Id, s => s.Key);
        return _rows.ToDictionary(s => s.Key, s => Describe(s.Value));
    }

    /// <inheritdoc/>
    public override void Read(Fields document)
    {
        base.Read(document);
        foreach (var names in Wanted.GroupBy(KeyOf))
        {
            if (IsId(names.Key) && !There.ContainsKey(names.Key))
                document.Refuse(Fields.Pointer(Name) + Fields.Pointer(names.Key), "There is no subscription with this id.");
            foreach (var name in names.Skip(1))
                document.Refuse(Fields.Pointer(Name) + Fields.Pointer(name), "It comes twice: by its id, and by its name.");
        }
    }

    /// <inheritdoc/>
    public override void Complete(string name, JsonElement thing, Secrets secrets, Utf8JsonWriter writer)
    {
        var there = There.GetValueOrDefault(KeyOf(name))?.Full;
        writer.WriteStartObject();
        if (!IsId(name))
            writer.WriteString("name", name);
        foreach (var member in thing.EnumerateObject())
        {
            // What signs goes on doing so.
            if (member.Name == Secret && there is not null && !secrets.IsGivenAnyOf(member.Value))
                continue;
            writer.WritePropertyName(member.Name);
            // It is kept as PEM, whatever it came as.
            if (member.Name == Certificate && there?[Certificate] is JsonObject kept && !secrets.IsGivenAnyOf(member.Value))
                kept.WriteTo(writer);
            else
                secrets.Write(
                    member.Value, there?[member.Name], Fields.Pointer(Name) + Fields.Pointer(name) + Fields.Pointer(member.Name), writer);
        }
        writer.WriteEndObject();
    }

    protected override SubscriptionBody ReadOne(Fields fields) => SubscriptionBody.Read(fields);

    // Whoever takes one over by its id may apply that document once more.
    protected override string KeyOf(string name) =>
        TypeId.TryParse(TypeId.Subscription, name, out var id) ? _keys.GetValueOrDefault(id, name) : name;

    // Somebody, or the service, may have disabled it; which secrets there are follows from how they were rotated.
    protected override bool StaysAsItIs(string member) => member is "name" or "enabled" or Signatures;

    protected override Thing Describe(string name, SubscriptionBody body)
    {
        var thing = Describe(SubscriptionsApi.New(body, at.Caller.TenantId, at.Protector));
        if (body.Secret is { } brought && _rows.GetValueOrDefault(KeyOf(name))?.Secrets.Any(
            s => s.ExpiresAt is null && at.Protector.TryUnprotect(s.Secret) == brought) is not true)
            (thing.Full[Secret], thing.Shown[Secret]) = (brought, SubscriptionView.Masked);
        return thing;
    }

    protected override async Task<string?> AddAsync(SubscriptionBody body, CancellationToken cancellationToken)
    {
        var made = await SubscriptionsApi.AddAsync(body, at.Caller, at.Db, at.Protector, at.Caps, at.Time, cancellationToken);
        return made.Secret == body.Secret ? null : made.Secret;
    }

    protected override async Task<string?> UpdateAsync(string name, JsonObject patch, CancellationToken cancellationToken)
    {
        var id = _rows[name].Id;
        var before = There[name].Full;
        patch.Remove(Secret, out var secret);
        if (patch.Remove(Signatures, out var signatures) && Texts(before[Signatures]).Except(Texts(signatures)).Any())
            throw ApiException.Invalid("/" + Signatures, "What it is signed with can be added to, and not taken away.");
        foreach (var member in s_merged)
        {
            if (patch[member] is not JsonObject merged || before[member] is not JsonObject there)
                continue;
            foreach (var gone in there.Select(m => m.Key).Except(merged.Select(m => m.Key), StringComparer.OrdinalIgnoreCase).ToArray())
                merged[gone] = null;
        }
        if (patch.Count > 0)
        {
            await SubscriptionsApi.UpdateAsync(
                id, ReadPatch(patch, SubscriptionChange.Read), at.Caller, at.Db, at.Protector, at.Caps, at.Time, cancellationToken);
        }
        var brought = secret?.GetValue<string>();
        if (brought is not null)
            await RotateAsync(new RotateSecret { Secret = brought });
        string? made = null;
        foreach (var type in Texts(signatures).Except(Texts(before[Signatures])))
        {
            if (brought is null || SigningSecrets.TypeOf(brought) != type)
                made = (await RotateAsync(new RotateSecret { Type = SnakeCase<SignatureType>.Parse(type) })).Secret ?? made;
        }
        return made;

        Task<RotatedSecret> RotateAsync(RotateSecret rotation) =>
            SecretRotation.RotateAsync(id, rotation, at.Caller, at.Db, at.Protector, cancellationToken);
    }

    protected override Task RemoveAsync(string name, CancellationToken cancellationToken) =>
        SubscriptionsApi.RemoveAsync(_rows[name].Id, at.Caller, at.Db, cancellationToken);

    private static bool IsId(string name) => TypeId.TryParse(TypeId.Subscription, name, out _);

    private static string[] Texts(JsonNode? array) => [.. array?.AsArray().Select(text => text!.GetValue<string>()) ?? []];

    // In the place of what can't be decrypted: like nothing that a body can have, and nothing that could stay.
    private static JsonArray Unreadable => new();

    private Thing Describe(Subscription s)
    {
        var full = ViewOf(s, Scopes.SubscriptionsWrite);
        var shown = ViewOf(s);
        shown[Secret] = SubscriptionView.Masked;
        if (at.Protector.TryUnprotect(s.Authentication) is { } authentication)
            full[Authentication] = Members<AuthenticationBody>(JsonSerializer.Deserialize<ReceiverAuthentication>(authentication)!);
        if (at.Protector.TryUnprotect(s.ClientCertificate) is { } certificate)
            full[Certificate] = new JsonObject { ["pem"] = certificate };
        foreach (var (member, kept) in new[]
        {
            (Authentication, s.Authentication), (Certificate, s.ClientCertificate), (Transformation, s.Transformation),
        })
        {
            if (kept is not null && full[member] is null)
                (full[member], shown[member]) = (Unreadable, SubscriptionView.Masked);
        }
        foreach (var (name, _) in s.Headers.Where(h => at.Protector.TryUnprotect(h.Value) is null))
            full[Headers]![name] = Unreadable;
        return new Thing($"{s.UpdatedAt.UtcTicks} {s.Enabled}", full, shown)
        {
            Passing = s.Enabled || s.DisabledReason == SubscriptionsApi.DisabledByRequest ? [] : ["enabled"],
            MayBePruned = s.Name is not null,
        };
    }

    private JsonObject ViewOf(Subscription s, params string[] scopes) => Members<SubscriptionBody>(
        SubscriptionView.Of(s, at.Caller with { Scopes = scopes.ToHashSet() }, at.Protector, at.Time));
}
