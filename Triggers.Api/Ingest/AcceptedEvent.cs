namespace Triggers.Api.Ingest;

/// <summary>An event that is durable.</summary>
internal record AcceptedEvent(string Id, string Type, string Status, DateTimeOffset CreatedAt, string CorrelationId);
