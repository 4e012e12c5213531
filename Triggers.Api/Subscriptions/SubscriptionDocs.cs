using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;

namespace Triggers.Api.Subscriptions;

/// <summary>What the contract says about subscriptions.</summary>
internal static class SubscriptionDocs
{
    private const string Group = "Subscriptions";

    private const string Example =
        """{"id":"sub_01jd0000000000000000000000","name":"warehouse","url":"https://example.com/hooks","eventTypes":["order.*"],"filter":{"data":{"total":[{"numeric":[">=",100]}]}},"description":"The warehouse","enabled":true,"disabledReason":null,"headers":{"x-team":"warehouse"},"signatures":["v1"],"publicKey":null,"authentication":null,"clientCertificate":null,"format":"envelope","transformation":null,"retry":null,"ordering":"none","failingHead":"block","failingHeadAttempts":null,"rateLimit":null,"concurrency":null,"limitsInUse":null,"batch":null,"circuit":{"state":"closed","reason":null,"since":null,"failingSince":null,"nextProbeAt":null,"failedProbes":0,"lastOutcome":null,"lastStatusCode":null},"unreadable":null,"expiresAt":null,"createdAt":"2026-01-31T09:30:00Z","updatedAt":"2026-01-31T09:30:00Z"}""";

    public static readonly Operation Create = new("createSubscription", Group, "Subscribe",
        "Every event accepted after this answer whose type matches, and whose `subject`, `source` and `data` match the `filter`, is sent "
        + "to the address as a signed webhook (Standard Webhooks). The "
        + "signing secret, made here unless the request brings one, is shown here and never again: only the same request with the same "
        + "`Idempotency-Key` gets this answer once more.")
    {
        Headers = [IdempotencyKey.Parameter],
        Errors =
        [
            ErrorCodes.IdempotencyInProgress, ErrorCodes.IdempotencyAnswerLost, ErrorCodes.NameTaken, ErrorCodes.LimitReached,
            ErrorCodes.IdempotencyKeyReused,
        ],
        Body = new(typeof(SubscriptionBody),
            """{"url":"https://example.com/hooks","eventTypes":["order.*"],"description":"The warehouse","headers":{"x-team":"warehouse"}}"""),
        AnswerExample = Example[..^1] + ""","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq="}""",
    };

    public static readonly Operation List = new("listSubscriptions", Group, "List subscriptions",
        "Without their secrets. The values of `headers` are `***` unless the key has `subscriptions:write`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Get = new("getSubscription", Group, "Get a subscription",
        "`disabledReason` is `requested` once somebody disabled it, whatever did so before, `gone` after the receiver answered 410, or "
        + "`failing` after every attempt failed for days. "
        + "`circuit` says whether deliveries are held because attempts fail, and when the next is tried. `limitsInUse` says, where there "
        + "is a `rateLimit` or a `concurrency`, what counts against them now. The values of `headers` are "
        + "`***` unless the key has `subscriptions:write`. `unreadable` names the members that the service can't decrypt any more, since "
        + "its operator has lost a key: they are null here, headers `***`, and nothing is sent until all of them, and `secret` by a "
        + "rotation, are new.")
    {
        AnswerExample = Example,
    };

    public static readonly Operation Change = new("changeSubscription", Group, "Change a subscription",
        "JSON merge patch (RFC 7396): members that are not there stay. `headers` are merged, name by name, and "
            + "`retry` member by member; `eventTypes` are replaced. "
            + "A disabled "
        + "subscription gets no new deliveries; those it has wait until it is enabled again. What was published meanwhile is delivered "
        + "by a replay "
        + "(`POST /replays`).")
    {
        Body = new(typeof(SubscriptionChange), """{"enabled":false}"""),
        Errors = [ErrorCodes.NameTaken, ErrorCodes.LimitReached],
        AnswerExample = Example.Replace("\"enabled\":true,\"disabledReason\":null", "\"enabled\":false,\"disabledReason\":\"requested\""),
    };

    public static readonly Operation Ordering = new("getSubscriptionOrdering", Group, "See what waits in order",
        "The keys of which something is on its way, or held, in the order of their names: the delivery that heads each, and how many wait "
        + "behind it. `held` is what is sent only when somebody lets it go; `failing` what is tried again. With `strict` ordering there is "
        + "one key, and its name is empty.")
    {
        Query = [OrderingApi.State, OrderingApi.After, OrderingApi.Limit],
        AnswerExample = """{"keys":[{"key":"customer-7","state":"held","reason":"exhausted","since":"2026-01-31T09:30:00Z","failedDeliveryId":"dlv_01jd0000000000000000000000","head":{"deliveryId":"dlv_01jd0000000000000000000000","eventId":"evt_01jd0000000000000000000000","inFlight":false,"failedAttempts":12,"nextAttemptAt":null,"lastOutcome":"http_status","lastStatusCode":503},"behind":41}],"more":false}""",
    };

    public static readonly Operation ReleaseKeys = new("releaseSubscriptionKeys", Group, "Let held keys go",
        "One, or all. What failed for good and still heads its key is tried again, with all the attempts of its retries; then what waits "
        + "behind it goes on. A dead letter stays one. At most 500 keys at a time, the longest held first; `remaining` says whether there "
        + "are more.")
    {
        Body = new(typeof(ReleaseKeys), """{"key":"customer-7"}"""),
        BodyIsOptional = true,
        AnswerExample = """{"released":1,"remaining":false}""",
    };

    public static readonly Operation SkipHead = new("skipSubscriptionHead", Group, "Give up what heads a key",
        "It becomes a dead letter, `skipped`, and the next one of its key goes on, unless the key is held by a dead letter. What is being "
        + "sent at this moment can't be skipped.")
    {
        Body = new(typeof(SkipHead), """{"deliveryId":"dlv_01jd0000000000000000000000"}"""),
        Errors = [ErrorCodes.WaitsInOrder, ErrorCodes.DeliveryEnded],
    };

    public static readonly Operation Delete = new("deleteSubscription", Group, "Delete a subscription",
        "Its history stays; what is still pending is cancelled.")
    {
    };

    public static readonly Operation RotateSecret = new("rotateSubscriptionSecret", Group, "Give a subscription a new secret",
        "For the `overlap`, 24 hours unless the request says otherwise, webhooks are signed with the secrets of before too, so that "
            + "the receiver can "
        + "change over. With `00:00:00` a leaked secret is revoked at once. At most ten secrets are kept.")
    {
        Body = new(typeof(RotateSecret), """{"overlap":"00:00:00"}"""),
        BodyIsOptional = true,
        AnswerExample = """{"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq=","publicKey":null,"previousExpiresAt":"2026-02-01T09:30:00Z"}""",
    };

    public static readonly Operation Keys = new("getWebhookKeys", Group, "Get the public keys of a subscription",
        "The keys that `v1a` signatures of its webhooks are verified with (Ed25519), as a JSON Web Key Set: the newest, and those of "
        + "before as long as they sign. None for an id that is nobody's. May be cached for five minutes; verify with any key of the set.")
    {
        Query = [Parameter.Id(WebhookKeys.SubscriptionId, "Of the subscription; required.", TypeId.Subscription)],
        AnswerExample = """{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"21fe31dfa154a261","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","publicKey":"whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}]}""",
        Errors = [ErrorCodes.InvalidRequest, ErrorCodes.RateLimited, ErrorCodes.StorageUnavailable],
    };

    public static readonly Operation OpenCircuit = new("openSubscriptionCircuit", Group, "Hold a subscription's deliveries",
        "New deliveries are made and wait, in their order, and nothing is sent until the circuit is closed again. A disabled subscription "
        + "gets no new deliveries instead.")
    {
        AnswerExample = Example.Replace(
            "\"state\":\"closed\",\"reason\":null,\"since\":null",
            "\"state\":\"open\",\"reason\":\"requested\",\"since\":\"2026-01-31T09:30:00Z\""),
    };

    public static readonly Operation CloseCircuit = new("closeSubscriptionCircuit", Group, "Let a subscription's deliveries go",
        "Whether they are held by request or because attempts failed. What was held is sent in its order, a few at a time at first.")
    {
        AnswerExample = Example,
    };

    public static readonly Operation PreviewRetries = new("previewRetries", Group, "See when a subscription is tried again",
        "The attempts there would be if all of them failed, from the subscription's `retry` and the service's settings, and what then "
        + "becomes of the delivery. What is pending already keeps its next time; what follows is as it says here. Where the subscription "
        + "is ordered, it is the first delivery of a key, and `key` says what becomes of the rest.")
    {
        Query = [RetryPreview.Status],
        AnswerExample = """{"timeout":"00:00:15","maxAge":null,"maxRetryAfter":"01:00:00","attempts":[{"number":1,"delay":"00:00:00","earliest":"00:00:00","latest":"00:00:00"},{"number":2,"delay":"00:00:10","earliest":"00:00:08","latest":"00:00:12"}],"then":"dead_lettered","reason":"exhausted","failingHead":null,"key":null}""",
    };

    public static readonly Operation TestFilter = new("testFilter", Group, "Try a filter",
        "Says whether a filter matches an event, one that is given or one that is stored (then the key needs `events:read` too), and what "
        + "became of each of its conditions. Nothing is changed or sent.")
    {
        Body = new(typeof(FilterTestBody),
            """{"filter":{"data":{"total":[{"numeric":[">=",100]}]}},"event":{"subject":"order-7","data":{"total":42}}}"""),
        AnswerExample =
            """{"matches":false,"conditions":[{"pointer":"/data/total","expected":[{"numeric":[">=",100]}],"found":"42","matches":false}]}""",
    };

    public static readonly Operation PreviewTransformation = new("previewTransformation", Group, "Try a transformation",
        "Makes the request of an event, one that is given or one that is stored (then the key needs `events:read` too), and answers it, or "
        + "where the templates fail. Nothing is changed or sent.")
    {
        Body = new(typeof(TransformationPreviewBody),
            """{"transformation":{"template":"{\"text\":\"Order {{ event.data.id }}\"}"},"event":{"type":"order.created","data":{"id":7}}}"""),
        AnswerExample =
            """{"method":"POST","contentType":"application/json","headers":{},"body":"{\"text\":\"Order 7\"}","error":null}""",
    };

    public static readonly Operation Test = new("testSubscription", Group, "Send a test event now",
        "Sends one event of type `triggers.test` to this subscription only, once, and answers with the attempt, whatever came of it. It "
        + "waits behind nothing, and goes to a disabled subscription too.")
    {
        AnswerExample =
            $$"""{"eventId":"evt_01jd0000000000000000000000","deliveryId":"dlv_01jd0000000000000000000000","attempt":{{DeliveryDocs.AttemptExample}}}""",
        Errors = [ErrorCodes.SubscriptionGone, ErrorCodes.TooManyConcurrent, ErrorCodes.QuotaExceeded, ErrorCodes.TestNotAttempted],
    };

    public static readonly Operation Verify = new("verifySubscription", Group, "Verify a receiver before go-live",
        "Sends up to three test events, by the delivery service and as it sends all others: a genuine one, one that somebody else signed "
        + "(`triggers.test.forged`), and one signed an hour ago (`triggers.test.old`). Says whether the receiver is reachable and its "
        + "connection secure, until when its certificate is valid, whether it accepts the first and refuses the others, and how fast it "
        + "answers. It takes as long as the "
        + "receiver does, and costs three events.")
    {
        AnswerExample =
            $$"""{"passed":true,"certificate":{"subject":"CN=example.com","issuer":"CN=An authority","thumbprint":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","notBefore":"2026-01-01T00:00:00Z","expiresAt":"2026-04-01T00:00:00Z"},"checks":[{"name":"reachable","result":"passed","detail":"An answer came."},{"name":"tls","result":"passed","detail":"The connection is secure, and the certificate trusted and of this name."}],"attempts":[{{DeliveryDocs.AttemptExample}}]}""",
        Errors = [ErrorCodes.SubscriptionGone, ErrorCodes.TooManyConcurrent, ErrorCodes.QuotaExceeded, ErrorCodes.TestNotAttempted],
    };
}
