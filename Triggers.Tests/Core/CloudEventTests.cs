using Triggers.Core.Subscriptions;

namespace Triggers.Tests.Core;

/// <summary>What is a URI reference by RFC 3986, with its own examples and those of CloudEvents.</summary>
public sealed class CloudEventTests
{
    [Theory]
    [InlineData("https://github.com/cloudevents")]
    [InlineData("mailto:cncf-wg-serverless@lists.cncf.io")]
    [InlineData("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66")]
    [InlineData("cloudevents/spec/pull/123")]
    [InlineData("/sensors/tn-1234567/alerts")]
    [InlineData("1-555-123-4567")]
    [InlineData("ldap://[2001:db8::7]/c=GB?objectClass?one")]
    [InlineData("ftp://user:a%20b@ftp.is.co.za:21/rfc/rfc1808.txt#a/b?c")]
    [InlineData("//host:8080/a:b")]
    [InlineData("./a:b")]
    [InlineData("?a=/b")]
    [InlineData("#")]
    public void A_URI_reference_is_one(string text) => Assert.True(CloudEvent.IsUriReference(text));

    [Theory]
    [InlineData("the shop")]
    [InlineData("/größe")]
    [InlineData("a%2")]
    [InlineData("1a:b")]
    [InlineData("a[1]")]
    [InlineData("//[::1]x/a")]
    [InlineData("a#b#c")]
    [InlineData("a\\b")]
    [InlineData("a\n")]
    public void What_is_none_is_not(string text) => Assert.False(CloudEvent.IsUriReference(text));
}
