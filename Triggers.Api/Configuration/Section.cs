using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Configuration;

/// <summary>What sections work with, in the transaction of the request.</summary>
internal sealed record Workspace(Caller Caller, TriggersDbContext Db, SecretProtector Protector, CapOptions Caps, TimeProvider Time);

/// <summary>Something that a configuration can name, as it is, or as it is to be.</summary>
/// <param name="Stamp">Another one whenever the thing was changed.</param>
/// <param name="Full">The members of the body that would make the same again, with its secrets. Never shown.</param>
/// <param name="Shown">The same as readers may see them.</param>
internal sealed record Thing(string Stamp, JsonObject Full, JsonObject Shown)
{
    /// <summary>Before it is made.</summary>
    public static Thing Nothing { get; } = new("", new JsonObject(), new JsonObject());

    /// <summary>Members that say what has become of it, and nothing of what somebody wants.</summary>
    public string[] Passing { get; init; } = [];

    /// <summary>Whether it goes when a document that is complete does not name it.</summary>
    public bool MayBePruned { get; init; } = true;
}

/// <summary>A change, and what makes it: in the transaction, with a secret that nobody has seen, if one was made.</summary>
internal sealed record Step(ConfigurationChange Change, Func<CancellationToken, Task<string?>> RunAsync);

/// <summary>A member of the document: what there is of one kind, what is wanted, and the steps from one to the other.</summary>
internal abstract class Section(string name, string reads, string writes)
{
    /// <summary>In the document.</summary>
    public string Name { get; } = name;

    /// <summary>The scope to see it.</summary>
    public string Reads { get; } = reads;

    /// <summary>The scope to change it.</summary>
    public string Writes { get; } = writes;

    /// <summary>Changes with what there is.</summary>
    public abstract string Stamp { get; }

    /// <summary>Finds what there is.</summary>
    /// <param name="toChange">Whether it is locked until the transaction ends.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public abstract Task FindAsync(bool toChange, CancellationToken cancellationToken);

    /// <summary>Reads what is wanted.</summary>
    public abstract void Read(Fields document);

    /// <summary>What there is, as a document says it, with references in place of secrets.</summary>
    public abstract JsonObject Write();

    /// <summary>What is to be done; deletions only with <paramref name="prune"/>.</summary>
    /// <param name="wanted">The section as it was sent.</param>
    /// <param name="prune">Whether what it does not name goes.</param>
    public abstract IEnumerable<Step> Steps(JsonElement wanted, bool prune);

    /// <summary>Writes one of its things as its endpoint takes it: with its name, and with secrets.</summary>
    public virtual void Complete(string name, JsonElement thing, Secrets secrets, Utf8JsonWriter writer)
    {
        writer.WriteStartObject();
        writer.WriteString("name", name);
        foreach (var member in thing.EnumerateObject())
            member.WriteTo(writer);
        writer.WriteEndObject();
    }

    /// <summary>Those members of a view that the body has too: what a client says, and not what the service made of it.</summary>
    protected static JsonObject Members<TBody>(object view)
    {
        var members = JsonSerializer.SerializeToNode(view, view.GetType(), Http.Json.Options)!.AsObject();
        var said = typeof(TBody).GetProperties().Select(p => JsonNamingPolicy.CamelCase.ConvertName(p.Name)).ToHashSet();
        foreach (var property in view.GetType().GetProperties())
        {
            var name = JsonNamingPolicy.CamelCase.ConvertName(property.Name);
            if (!said.Contains(name) || members[name] is null)
                members.Remove(name);
            // What is the client's own JSON is left as it is.
            else if (property.PropertyType != typeof(JsonObject) && property.PropertyType != typeof(RawJson))
                RemoveNulls(members[name]!);
        }
        return members;
    }

    /// <summary>The members that differ, before and after.</summary>
    protected static List<FieldChange> Compare(Thing there, Thing wanted, Func<string, bool> staysAsItIs) =>
    [
        .. there.Full.Select(m => m.Key).Union(wanted.Full.Select(m => m.Key)).Where(
            name => !JsonNode.DeepEquals(there.Full[name], wanted.Full[name]) && !staysAsItIs(name))
            .Select(name => FieldChange.Of(name, there.Shown[name], wanted.Shown[name])),
    ];

    /// <summary>The merge patch that makes these changes.</summary>
    protected static JsonObject Patch(IEnumerable<FieldChange> changes, Thing wanted) =>
        new(changes.Select(c => KeyValuePair.Create(c.Name, wanted.Full[c.Name]?.DeepClone())));

    private static void RemoveNulls(JsonNode node)
    {
        if (node is not JsonObject members)
            return;
        foreach (var name in members.Where(m => m.Value is null).Select(m => m.Key).ToArray())
            members.Remove(name);
        foreach (var (_, value) in members)
            RemoveNulls(value!);
    }
}

/// <summary>A section of things with names.</summary>
/// <typeparam name="TBody">What makes one at its own endpoint.</typeparam>
internal abstract class Section<TBody>(string name, string reads, string writes) : Section(name, reads, writes)
    where TBody : class
{
    private Dictionary<string, Thing> _there = [];
    private Dictionary<string, TBody>? _wanted;

    /// <inheritdoc/>
    public override string Stamp => string.Join('\n', _there.Select(t => $"{t.Key} {t.Value.Stamp}").Order(StringComparer.Ordinal));

    /// <summary>What there is, by name.</summary>
    protected Dictionary<string, Thing> There => _there;

    /// <summary>The names in the document.</summary>
    protected IEnumerable<string> Wanted => _wanted?.Keys.AsEnumerable() ?? [];

    /// <summary>One that says nothing but what it must.</summary>
    protected abstract Thing Least { get; }

    /// <summary>Finds what there is, by name.</summary>
    protected abstract Task<Dictionary<string, Thing>> FindAllAsync(bool toChange, CancellationToken cancellationToken);

    /// <summary>Reads one, as its endpoint does.</summary>
    protected abstract TBody ReadOne(Fields fields);

    /// <summary>What the body would make.</summary>
    /// <param name="name">Of it.</param>
    /// <param name="body">As it was read.</param>
    protected abstract Thing Describe(string name, TBody body);

    /// <summary>Makes one; answers a secret that was made with it.</summary>
    protected abstract Task<string?> AddAsync(TBody body, CancellationToken cancellationToken);

    /// <summary>Changes one; answers a secret that was made with that.</summary>
    protected abstract Task<string?> UpdateAsync(string name, JsonObject patch, CancellationToken cancellationToken);

    /// <summary>Deletes one.</summary>
    protected abstract Task RemoveAsync(string name, CancellationToken cancellationToken);

    /// <summary>The name, among what there is, of what a document names so.</summary>
    protected virtual string KeyOf(string name) => name;

    /// <summary>Whether a member that is left out stays as it is, and is not what it is unless said.</summary>
    protected virtual bool StaysAsItIs(string member) => false;

    /// <inheritdoc/>
    public override async Task FindAsync(bool toChange, CancellationToken cancellationToken) =>
        _there = await FindAllAsync(toChange, cancellationToken);

    /// <inheritdoc/>
    public override void Read(Fields document) => _wanted = document.Objects(Name, ReadOne);

    /// <inheritdoc/>
    public override JsonObject Write()
    {
        var least = Least.Full;
        return new(_there.OrderBy(t => t.Key, StringComparer.Ordinal).Select(t => KeyValuePair.Create<string, JsonNode?>(
            t.Key, new JsonObject(t.Value.Full
                .Where(m => m.Key != "name" && !t.Value.Passing.Contains(m.Key)
                    && !JsonNode.DeepEquals(m.Value, least[m.Key]))
                .Select(m => KeyValuePair.Create(m.Key, Secrets.Hide(m.Value, t.Value.Shown[m.Key], $"{t.Key}.{m.Key}")))))));
    }

    /// <inheritdoc/>
    public override IEnumerable<Step> Steps(JsonElement wanted, bool prune)
    {
        if (prune)
        {
            var named = Wanted.Select(KeyOf).ToHashSet();
            foreach (var (name, _) in _there.Where(t => t.Value.MayBePruned && !named.Contains(t.Key)))
            {
                yield return new Step(new ConfigurationChange(Name, name, ChangeAction.Delete, []), async cancellationToken =>
                {
                    await RemoveAsync(name, cancellationToken);
                    return null;
                });
            }
        }
        foreach (var (name, body) in _wanted!)
        {
            var said = wanted.GetProperty(name);
            var after = Describe(name, body);
            var key = KeyOf(name);
            if (!_there.TryGetValue(key, out var before))
            {
                var fields = Compare(Thing.Nothing, after, m => m == "name" || !said.TryGetProperty(m, out _));
                yield return new Step(
                    new ConfigurationChange(Name, name, ChangeAction.Create, fields), token => AddAsync(body, token));
            }
            else if (Compare(before, after, m => StaysAsItIs(m) && !said.TryGetProperty(m, out _)) is { Count: > 0 } changes)
            {
                yield return new Step(new ConfigurationChange(Name, name, ChangeAction.Update, changes),
                    token => UpdateAsync(key, Patch(changes, after), token));
            }
        }
    }

    /// <summary>Reads a patch as its endpoint does.</summary>
    protected static TChange ReadPatch<TChange>(JsonObject patch, Func<Fields, TChange> read) =>
        Fields.Read(JsonSerializer.SerializeToElement(patch), read);
}
