using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>
/// What the receiver knows its caller by, beside the signature. It takes the place of an <c>Authorization</c> header, is kept encrypted,
/// and its secrets are never shown.
/// </summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record AuthenticationBody
{
    private const int MaxLength = 4_096;

    /// <summary>
    /// <c>basic</c> with <c>username</c> and <c>password</c>, <c>bearer</c> with <c>token</c>, or <c>client_credentials</c> (OAuth 2.0)
    /// with <c>tokenUrl</c>, <c>clientId</c>, <c>clientSecret</c> and perhaps <c>scope</c>.
    /// </summary>
    public required AuthenticationType Type { get; init; }

    /// <summary>Without a colon.</summary>
    [Length(1, MaxLength)]
    public string? Username { get; init; }

    /// <summary>Of the user.</summary>
    [Length(0, MaxLength)]
    public string? Password { get; init; }

    /// <summary>A token that does not change.</summary>
    [Length(1, MaxLength), RegularExpression("^[!-~]+$")]
    public string? Token { get; init; }

    /// <summary>Where tokens are given. The same addresses are refused as for webhooks.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public string? TokenUrl { get; init; }

    /// <summary>The client's name.</summary>
    [Length(1, MaxLength)]
    public string? ClientId { get; init; }

    /// <summary>The client's secret.</summary>
    [Length(1, MaxLength)]
    public string? ClientSecret { get; init; }

    /// <summary>What tokens are asked for.</summary>
    [Length(1, MaxLength)]
    public string? Scope { get; init; }

    public static ReceiverAuthentication Read(Fields fields)
    {
        var type = fields.OneOf<AuthenticationType>("type");
        var authentication = new ReceiverAuthentication
        {
            Type = type ?? default,
            Username = fields.Text("username"),
            Password = fields.Text("password"),
            Token = fields.Text("token"),
            TokenUrl = ReadTokenUrl(fields),
            ClientId = fields.Text("clientId"),
            ClientSecret = fields.Text("clientSecret"),
            Scope = fields.Text("scope"),
        };
        if (authentication.Username?.Contains(':') is true)
            fields.Refuse("/username", "Must not have a colon in it.");
        if (authentication.Token?.All(c => c is > ' ' and <= '~') is false)
            fields.Refuse("/token", "Must be printable ASCII without spaces.");
        string[] wanted = type switch
        {
            AuthenticationType.Basic => ["username", "password"],
            AuthenticationType.Bearer => ["token"],
            AuthenticationType.ClientCredentials => ["tokenUrl", "clientId", "clientSecret"],
            _ => [],
        };
        foreach (var name in wanted.Where(name => !fields.Has(name)))
            fields.Refuse("/" + name, "Is required with this type.");
        foreach (var name in s_members.Except(wanted).Where(name =>
            type is not null && fields.Has(name) && !(type == AuthenticationType.ClientCredentials && name == "scope")))
            fields.Refuse("/" + name, "Does not go with this type.");
        return authentication;
    }

    private static readonly string[] s_members =
        ["username", "password", "token", "tokenUrl", "clientId", "clientSecret", "scope"];

    private static string? ReadTokenUrl(Fields fields)
    {
        if (fields.Text("tokenUrl") is not { } url)
            return null;
        if (WebhookAddress.TryNormalize(url, out var address, out var problem))
            return address;
        fields.Refuse("/tokenUrl", problem);
        return null;
    }
}

/// <summary>What is shown of how a receiver is asked: no secrets.</summary>
internal sealed record AuthenticationView(AuthenticationType Type, string? Username, string? TokenUrl, string? ClientId, string? Scope)
{
    public static AuthenticationView Of(ReceiverAuthentication a) => new(a.Type, a.Username, a.TokenUrl, a.ClientId, a.Scope);
}

/// <summary>The signatures of Standard Webhooks.</summary>
internal sealed class SignatureItemsAttribute() : ItemsAttribute(maxLength: 3)
{
    public override IReadOnlyCollection<string> Values => SigningSecrets.Types;
}
