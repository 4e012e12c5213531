using CsCheck;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.EventLog.Idempotency;

namespace Triggers.Tests.EventLog;

/// <summary>What becomes of a request by who holds its keys.</summary>
public sealed class DecisionTests
{
    private static readonly Guid s_tenant = TypeId.NewGuid();
    private static readonly Guid s_theirs = TypeId.NewGuid();

    [Theory]
    [InlineData("none", null, true, "wait")]
    [InlineData("own", "settled", true, "appended")]
    [InlineData("own", "busy", true, "appended")]
    [InlineData("theirs", "settled", true, "repeated")]
    [InlineData("theirs", "settled", false, "key reused")]
    [InlineData("theirs", "busy", true, "wait")]
    [InlineData("theirs", "busy", false, "key reused")]
    [InlineData("theirs", "abandoned", true, "resolve")]
    [InlineData("theirs", "abandoned", false, "resolve")]
    public void An_idempotency_key_decides_for_the_whole_request(string who, string? state, bool same, string expected)
    {
        var request = Request(1, 0);
        Assert.Equal(expected, Of(
            Decision.Decide(request, Holders((KeyId.Idempotency(s_tenant, request.IdempotencyKey!), request.FirstId, who, state, same)))));
    }

    [Theory]
    [InlineData("none", null, true, "wait")]
    [InlineData("own", "settled", true, "appended: appended")]
    [InlineData("own", "busy", true, "appended: appended")]
    [InlineData("theirs", "settled", true, "appended: repeated")]
    [InlineData("theirs", "settled", false, "appended: conflict")]
    [InlineData("theirs", "busy", true, "wait")]
    [InlineData("theirs", "busy", false, "appended: conflict")]
    [InlineData("theirs", "abandoned", true, "resolve")]
    [InlineData("theirs", "abandoned", false, "resolve")]
    public void An_external_id_decides_for_its_event(string who, string? state, bool same, string expected)
    {
        var request = Request(null, 1);
        var decision = Decision.Decide(
            request, Holders((KeyId.External(s_tenant, request.Events[0].ExternalKey!), request.FirstId, who, state, same)));
        var outcome = decision is Decision.Answer answer ? ": " + Of(answer.Result.Events[0].Outcome) : "";
        Assert.Equal(expected, Of(decision) + outcome);
    }

    [Fact]
    public void A_repeated_request_has_the_ids_of_the_first_and_those_that_others_held_already()
    {
        var request = Request(1, 2, 3);
        var decision = Decision.Decide(request, Holders(
            (KeyId.Idempotency(s_tenant, request.IdempotencyKey!), request.FirstId, "theirs", "settled", true),
            (KeyId.External(s_tenant, request.Events[1].ExternalKey!), request.Events[1].Id, "others", "settled", true)));

        var events = Assert.IsType<Decision.Answer>(decision).Result.Events;
        Assert.Equal((s_theirs, AppendedEventOutcome.Appended), (events[0].Id, events[0].Outcome));
        Assert.Equal(AppendedEventOutcome.Repeated, events[1].Outcome);
        Assert.NotEqual(TypeId.Add(s_theirs, 1), events[1].Id);
    }

    [Fact]
    public void Whoever_holds_what_an_event_is_appended_once_and_only_by_the_holder_of_all_its_keys()
    {
        Gen.Select(Gen.Int[0, 2], Gen.Int[0, 3].Array[1, 5], Gen.Int[0, 9].Array[6]).Sample((key, externals, chances) =>
        {
            var request = Request(key == 0 ? null : key, externals);
            var holders = new Dictionary<KeyId, Holder>();
            var i = 0;
            foreach (var id in KeyId.AllOf(request).Distinct())
            {
                var chance = chances[i++ % chances.Length];
                var first = request.Events.FirstOrDefault(e => e.ExternalKey is { } k && KeyId.External(s_tenant, k) == id);
                if (chance < 9)
                {
                    holders[id] = new Holder(
                        chance % 2 == 0 || chance >= 6 ? Content(1) : Content(2),
                        chance >= 6 ? first?.Id ?? request.FirstId : TypeId.NewGuid(), "c",
                        (HolderState)(chance % 3));
                }
            }

            switch (Decision.Decide(request, holders))
            {
                case Decision.Answer { Result.Outcome: AppendOutcome.Appended } answer:
                    Assert.Equal(request.Events.Count, answer.Result.Events.Count);
                    Assert.True(request.IdempotencyKey is not { } k || holders[KeyId.Idempotency(s_tenant, k)].EventId == request.FirstId);
                    Assert.All(answer.ToAppend, e =>
                        Assert.True(e.ExternalKey is not { } x || holders[KeyId.External(s_tenant, x)].EventId == e.Id));
                    Assert.Equal(answer.ToAppend.Count, answer.ToAppend.Select(e => e.ExternalId ?? $"{e.Id}").Distinct().Count());
                    Assert.Equal(answer.ToAppend.Select(e => e.Id), answer.Result.Events.Where(
                        e => e.Outcome == AppendedEventOutcome.Appended).Select(e => e.Id));
                    Assert.Equal(answer.ToAppend.Count == 0 && request.IdempotencyKey is not null, answer.Unused.Count == 1);
                    break;
                case Decision.Answer answer:
                    Assert.Empty(answer.ToAppend);
                    break;
                case Decision.Resolve resolve:
                    Assert.All(resolve.Keys, k => Assert.Equal(HolderState.Abandoned, holders[k].State));
                    break;
            }
        });
    }

    private static string Of(Decision decision) => decision switch
    {
        Decision.Wait => "wait",
        Decision.Resolve => "resolve",
        Decision.Answer { Result.Outcome: AppendOutcome.KeyReused } => "key reused",
        Decision.Answer { Result.Outcome: var outcome } => $"{outcome}".ToLowerInvariant(),
        _ => throw new InvalidOperationException(),
    };

    private static string Of(AppendedEventOutcome outcome) =>
        outcome == AppendedEventOutcome.ExternalIdConflict ? "conflict" : $"{outcome}".ToLowerInvariant();

    private static Dictionary<KeyId, Holder> Holders(params (KeyId Key, Guid Own, string Who, string? State, bool Same)[] holders) =>
        holders.Where(h => h.Who != "none").ToDictionary(
        h => h.Key,
        h => new Holder(Content(h.Same ? 1 : 2), h.Who switch { "own" => h.Own, "theirs" => s_theirs, _ => TypeId.NewGuid() },
            "c", Enum.Parse<HolderState>(h.State!, true)));

    /// <summary>A request with a key, or none, and an event for each external id; 0 is none.</summary>
    private static AppendRequest Request(int? key, params int[] externals)
    {
        var first = TypeId.NewGuid();
        return new AppendRequest(s_tenant, first, "test", null, key is null ? null : new RequestKey([(byte)key], Content(1)),
        [
            .. externals.Select((x, i) => new NewEvent(
                TypeId.Add(first, i), "a.b", x == 0 ? null : $"{x}",
                x == 0 ? null : new RequestKey([(byte)x], Content(1)), null, null, null, "1"u8.ToArray())),
        ]);
    }

    private static byte[] Content(int n) => [(byte)n];
}
