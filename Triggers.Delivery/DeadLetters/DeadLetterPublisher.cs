using System.Buffers;
using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Waking;
using Triggers.EventLog.Kafka;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.DeadLetters;

/// <summary>
/// Publishes every dead letter to the topic <c>dead-letters</c>. The rows that have not been published yet are the outbox: written
/// with what made the letter, marked when Kafka has the record. A crash between the two repeats a record, so readers deduplicate by
/// the delivery's id. docs/topics.md describes the record.
/// </summary>
internal sealed class DeadLetterPublisher(
    NpgsqlDataSource dataSource,
    IProducer<byte[], byte[]> producer,
    KafkaTopics topics,
    IOptions<KafkaOptions> options,
    Wakeups wakeups,
    Readiness readiness,
    TimeProvider time,
    ILogger<DeadLetterPublisher> logger) : BackgroundLoop(time, logger)
{
    private const int BatchSize = 20;
    private const int MaxAttempts = 20;

    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(5);

    protected override bool IsAway(Exception e) => e is KafkaException || base.IsAway(e);

    protected override async Task PrepareAsync(CancellationToken stoppingToken)
    {
        await readiness.SchemaIsThere.WaitAsync(stoppingToken);
        await topics.Ready.WaitAsync(stoppingToken);
    }

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        while (await PublishAsync(stoppingToken) == BatchSize)
        {
        }
        Recovered();
        await wakeups.DeadLetters.WaitAsync(s_look, stoppingToken);
    }

    /// <returns>How many were published.</returns>
    private async Task<int> PublishAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        // One process at a time. The letters themselves stay unlocked: a replay that ends must not wait for Kafka.
        await using (var command = new NpgsqlCommand(
            $"SELECT pg_try_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.DeadLetters})", connection))
        {
            if (await command.ExecuteScalarAsync(cancellationToken) is not true)
                return 0;
        }
        var letters = await ReadAsync(connection, cancellationToken);
        if (letters.Count == 0)
            return 0;
        var produced = letters.ConvertAll(l => (Letter: l, Task: ProduceAsync(l)));
        var all = Task.WhenAll(produced.Select(p => p.Task));
        await all.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

        // What one of them waits for is no reason to repeat the others.
        var published = produced.Where(p => p.Task.IsCompletedSuccessfully).Select(p => (p.Letter.TenantId, p.Letter.DeliveryId)).ToList();
        await using (var mark = new NpgsqlBatch(connection) { BatchCommands = { DeadLetterChanges.Publish(published) } })
            await mark.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        await all;
        return letters.Count;
    }

    private async Task ProduceAsync(Letter letter)
    {
        try
        {
            await producer.ProduceAsync(options.Value.DeadLettersTopic, letter.Message, CancellationToken.None);
        }
        catch (KafkaException e) when (e.Error.Code == ErrorCode.MsgSizeTooLarge)
        {
            var lesser = letter with { ShowsResponses = false };
            await producer.ProduceAsync(options.Value.DeadLettersTopic, lesser.Message, CancellationToken.None);
        }
    }

    private static async Task<List<Letter>> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"""
            SELECT l.tenant_id, l.delivery_id, l.reason, l.attempts, l.created_at, l.subscription_id, s.url, s.description, s.event_types,
                (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.number)::text FROM (
                    SELECT number, started_at, duration_ms, outcome, error, status_code, response_headers
                    FROM all_attempts WHERE tenant_id = l.tenant_id AND delivery_id = l.delivery_id
                        ORDER BY claim DESC LIMIT {MaxAttempts}) a),
                (SELECT response_body FROM all_attempts WHERE tenant_id = l.tenant_id AND delivery_id = l.delivery_id
                    ORDER BY claim DESC LIMIT 1),
                {StoredEvent.Columns}
            FROM dead_letters l
            LEFT JOIN subscriptions s ON s.id = l.subscription_id
            JOIN events e ON e.tenant_id = l.tenant_id AND e.id = l.event_id
            WHERE l.published_at IS NULL
            ORDER BY l.created_at LIMIT {BatchSize}
            """, connection);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var letters = new List<Letter>();
        while (await reader.ReadAsync(cancellationToken))
        {
            letters.Add(new Letter(
                reader.GetGuid(0), reader.GetGuid(1), reader.GetString(2), reader.GetInt32(3),
                reader.GetFieldValue<DateTimeOffset>(4), reader.GetGuid(5),
                reader.IsDBNull(6) ? null : reader.GetString(6), reader.IsDBNull(7) ? null : reader.GetString(7),
                reader.IsDBNull(8) ? [] : reader.GetFieldValue<string[]>(8), reader.IsDBNull(9) ? "[]" : reader.GetString(9),
                reader.IsDBNull(10) ? null : reader.GetFieldValue<byte[]>(10), StoredEvent.Read(reader, 11)));
        }
        return letters;
    }

    private sealed record Letter(
        Guid TenantId, Guid DeliveryId, string Reason, int Attempts,
        DateTimeOffset CreatedAt, Guid SubscriptionId, string? Url, string? Description,
        string[] EventTypes, string AttemptsJson, byte[]? LastResponse, StoredEvent Event)
    {
        /// <summary>Whether it has the headers and the body of what was answered.</summary>
        public bool ShowsResponses { get; init; } = true;

        public Message<byte[], byte[]> Message
        {
            get
            {
                var headers = new Headers();
                void Header(string name, string? value)
                {
                    if (value is not null)
                        headers.Add(name, Encoding.UTF8.GetBytes(value));
                }
                Header("ce_specversion", "1.0");
                Header("ce_id", TypeId.Format(TypeId.Delivery, DeliveryId));
                Header("ce_type", "triggers.delivery.dead_lettered");
                Header("ce_source", TypeId.Format(TypeId.Tenant, TenantId));
                Header("traceparent", Event.TraceParent);
                Header("tracestate", Event.TraceState);
                Header("correlation-id", Event.CorrelationId);
                return new Message<byte[],
                byte[]>
                { Key = Encoding.UTF8.GetBytes(TypeId.Format(TypeId.Event, Event.Id)), Value = Encode(), Headers = headers };
            }
        }

        private byte[] Encode()
        {
            var buffer = new ArrayBufferWriter<byte>(Event.Data.Length + AttemptsJson.Length + 1024);
            using (var json = new Utf8JsonWriter(buffer))
            {
                json.WriteStartObject();
                json.WriteNumber("v", 1);
                json.WriteString("delivery", TypeId.Format(TypeId.Delivery, DeliveryId));
                json.WriteString("tenant", TypeId.Format(TypeId.Tenant, TenantId));
                json.WriteString("reason", Reason);
                json.WriteNumber("attemptCount", Attempts);
                json.WriteString("createdAt", CreatedAt);
                json.WriteStartObject("subscription");
                json.WriteString("id", TypeId.Format(TypeId.Subscription, SubscriptionId));
                json.WriteString("url", Url);
                json.WriteString("description", Description);
                json.WriteStartArray("eventTypes");
                foreach (var type in EventTypes)
                    json.WriteStringValue(type);
                json.WriteEndArray();
                json.WriteEndObject();
                json.WriteStartArray("attempts");
                ReadableBody? lastBody = null;
                using (var attempts = JsonDocument.Parse(AttemptsJson))
                {
                    foreach (var attempt in attempts.RootElement.EnumerateArray())
                        WriteAttempt(json, attempt);
                    if (ShowsResponses && LastResponse is not null && attempts.RootElement.EnumerateArray()
                        .LastOrDefault() is { ValueKind: JsonValueKind.Object } last)
                        lastBody = ReadableBody.Of(
                            LastResponse, last.GetProperty("response_headers").Deserialize<Dictionary<string, string>>());
                }
                json.WriteEndArray();
                json.WriteString("lastResponseBody", lastBody?.Text);
                json.WriteString("lastResponseBodyEncoding", lastBody is { } body ? SnakeCase<BodyEncoding>.Of(body.Encoding) : null);
                json.WriteStartObject("event");
                json.WriteString("id", TypeId.Format(TypeId.Event, Event.Id));
                json.WriteString("type", Event.Type);
                json.WriteString("externalId", Event.ExternalId);
                json.WriteString("source", Event.Source);
                json.WriteString("subject", Event.Subject);
                if (Event.Time is { } at)
                    json.WriteString("time", at);
                json.WriteString("createdAt", TypeId.CreatedAt(Event.Id));
                json.WriteString("correlationId", Event.CorrelationId);
                Event.Attributes?.WriteMembers(json);
                json.WritePropertyName(Event.Attributes?.DataMember ?? "data");
                json.WriteRawValue(Event.Data, skipInputValidation: true);
                json.WriteEndObject();
                json.WriteEndObject();
            }
            return buffer.WrittenSpan.ToArray();
        }

        private void WriteAttempt(Utf8JsonWriter json, JsonElement attempt)
        {
            json.WriteStartObject();
            foreach (var (column, name) in (
                ReadOnlySpan<(string, string)>)[("number", "number"), ("started_at", "startedAt"), ("duration_ms", "durationMs"),
                ("outcome", "outcome"), ("status_code", "statusCode"), ("error", "error"), ("response_headers", "responseHeaders")])
            {
                json.WritePropertyName(name);
                if (column == "response_headers" && !ShowsResponses)
                    json.WriteNullValue();
                else
                    attempt.GetProperty(column).WriteTo(json);
            }
            json.WriteEndObject();
        }
    }
}
