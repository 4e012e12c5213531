namespace Triggers.Core;

/// <summary>
/// How long a request may take, in one place. Clients are promised an answer within 2 s, whatever state the stores are in; everything a
/// request waits for takes its share from here.
/// </summary>
public static class RequestBudget
{
    /// <summary>
    /// The whole of it: from the headers, without the time the client takes to send its body, to the first byte of the answer.
    /// </summary>
    public static readonly TimeSpan Request = TimeSpan.FromSeconds(1.7);

    /// <summary>An append. Less than the whole, so that the answer says what the matter was.</summary>
    public static readonly TimeSpan Append = TimeSpan.FromSeconds(1.6);

    /// <summary>
    /// The commit of an append. Less than the append, so that who is told to come again mostly knows that nothing was kept.
    /// </summary>
    public static readonly TimeSpan Commit = TimeSpan.FromSeconds(1.4);

    /// <summary>The same for brokers.</summary>
    public static readonly TimeSpan Produce = TimeSpan.FromSeconds(1.5);

    /// <summary>
    /// Waiting for one's turn at the brokers. It comes on top of their time, and is counted where lists wait for what is on its way.
    /// </summary>
    public static readonly TimeSpan Turn = TimeSpan.FromSeconds(1);

    /// <summary>
    /// How far the clocks of our processes and of the database may be apart: times of one are compared with those of another.
    /// </summary>
    public static readonly TimeSpan Clocks = TimeSpan.FromSeconds(1);

    /// <summary>
    /// The longest from an event's getting its id to its being in the Kafka log: its keys are reserved before, and it waits for its turn.
    /// </summary>
    public static readonly TimeSpan IdToKafka = Append + Turn + Produce + Clocks;

    /// <summary>Waiting for the projection to store an event that was accepted just now.</summary>
    public static readonly TimeSpan Visibility = TimeSpan.FromSeconds(1.3);
}
