using Triggers.Api.Errors;
using Triggers.Api.Idempotency;
using Triggers.Api.Operations;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Hooks;

/// <summary>What the contract says about REST hooks.</summary>
internal static class HookDocs
{
    private const string Group = "Hooks";

    public static readonly Parameter Type = Parameter.Text("type",
        "An event type. Events of any type when left out.", "order.created", EventTypePattern.MaxLength, @"^[A-Za-z0-9._-]{1,256}$");

    public static readonly Parameter Format = Parameter.OneOf("format",
        "The format of a subscription that the samples are in; `envelope` when left out.", "data", SnakeCase<WebhookFormat>.All);

    public static readonly Operation Create = new("createHook", Group, "Subscribe an address",
        "A subscription whose address is its name: the same `targetUrl` again changes its types, its end and, where it says so, its "
        + "format, enables it if it was disabled because it failed, and is answered with the same id and no secret. A receiver that "
        + "answers 410 deletes it.")
    {
        Headers = [IdempotencyKey.Parameter],
        Body = new(typeof(HookBody), """{"targetUrl":"https://hooks.example.com/1/abc","eventTypes":["order.created"]}"""),
        AnswerExample =
            """{"id":"sub_01jd0000000000000000000000","targetUrl":"https://hooks.example.com/1/abc","eventTypes":["order.created"],"enabled":true,"expiresAt":null,"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq="}""",
        Errors =
        [
            ErrorCodes.IdempotencyInProgress, ErrorCodes.IdempotencyAnswerLost, ErrorCodes.LimitReached, ErrorCodes.IdempotencyKeyReused,
        ],
    };

    public static readonly Operation Remove = new("removeHook", Group, "Unsubscribe an address",
        "What is still pending is cancelled. 204 also when there is no such hook, or no longer: the same request may be sent again.")
    {
        Body = new(typeof(RemoveHook), """{"targetUrl":"https://hooks.example.com/1/abc"}"""),
    };

    public static readonly Operation Samples = new("getHookSamples", Group, "Get samples of an event type",
        "The newest events of the type, up to three, each exactly as the body of its webhook. Where there is none, an event with nothing "
        + "in it is made up, so that there is something to build on; `builtIn` says so.")
    {
        Query = [Type, Format],
        AnswerExample =
            """{"items":[{"id":"evt_01jd0000000000000000000000","type":"order.created","timestamp":"2026-01-31T09:30:00Z","data":{"total":1250}}],"builtIn":false}""",
    };
}
