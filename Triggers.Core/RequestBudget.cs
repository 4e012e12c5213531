namespace Triggers.Core;

/// <summary>
/// How long a request may take, and what of it each step may use: the one table of such times. Clients are told that an answer takes no
/// longer than 2 s, whatever state the stores are in.
/// <code>
/// step                                          may use
/// the whole, but for sending body and answer    Request, 1.7 s: a TimeLimit, begun with the request and handed down
///   whose key it is, and every query            what is left
///   counting in Redis                           Redis: without an answer this process counts, and for a second asks no more
///   room for a large body                       LargeBody; without it the rest is not read
///   an append                                   what is left but Answer; it isn't begun with less than LeastAppend
///     its turn at the brokers                   what is left of that, at most Turn
///     its commit, or the brokers                Commit, or Produce: once begun they end by themselves, whoever still waits
///   waiting for somebody else                   what is left but AfterWait
///   one portion after another                   begun while more than Portion is left
///   a list's scanning                           Scan, and the chunk that was begun by then
/// who is held up all the same                   is answered for when Answer more has passed
/// </code>
/// Steps come one after another and share what is left, so that they add up to the whole. Only Redis has a time of its own, which may begin
/// at the very end: 1.7 s and 0.25 s are less than 2 s, and so are 1.7 s and 0.1 s. <c>/health</c> asks all its parts at once, so that it
/// takes <see cref="Health"/> in all.
/// </summary>
public static class RequestBudget
{
    /// <summary>
    /// The whole of it: from the headers, without the time the client takes to send its body, to the first byte of the answer.
    /// </summary>
    public static readonly TimeSpan Request = TimeSpan.FromSeconds(1.7);

    /// <summary>Kept by an append, so that the answer says what the matter was; and given to whoever was cancelled, to say so.</summary>
    public static readonly TimeSpan Answer = TimeSpan.FromSeconds(0.1);

    /// <summary>Waiting for other large bodies of the same tenant. What is left then is enough to append it.</summary>
    public static readonly TimeSpan LargeBody = TimeSpan.FromSeconds(0.9);

    /// <summary>
    /// With less no append is begun: most likely it would be durable only after its client was told to come again.
    /// </summary>
    public static readonly TimeSpan LeastAppend = TimeSpan.FromSeconds(0.2);

    /// <summary>
    /// The commit of an append. Less than the whole, so that who is told to come again mostly knows that nothing was kept.
    /// </summary>
    public static readonly TimeSpan Commit = TimeSpan.FromSeconds(1.4);

    /// <summary>The same for brokers.</summary>
    public static readonly TimeSpan Produce = TimeSpan.FromSeconds(1.5);

    /// <summary>Waiting for one's turn at the brokers.</summary>
    public static readonly TimeSpan Turn = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Kept by a request that waits for somebody else, the projection or a request with the same keys, for what it does then.
    /// </summary>
    public static readonly TimeSpan AfterWait = TimeSpan.FromSeconds(0.4);

    /// <summary>What is done portion by portion begins another one only with more than this left.</summary>
    public static readonly TimeSpan Portion = TimeSpan.FromSeconds(0.9);

    /// <summary>How long a list goes on looking for what fits a filter that no index answers.</summary>
    public static readonly TimeSpan Scan = TimeSpan.FromMilliseconds(40);

    /// <summary>One question to Redis. Not cut by the request's end: that would say nothing about Redis.</summary>
    public static readonly TimeSpan Redis = TimeSpan.FromMilliseconds(250);

    /// <summary>Whether one dependency is well, and whose key asks.</summary>
    public static readonly TimeSpan Health = TimeSpan.FromSeconds(1);

    /// <summary>A connection to Postgres.</summary>
    public static readonly TimeSpan Connect = TimeSpan.FromSeconds(1);

    /// <summary>One question for the ends of a topic, asked for all who wait.</summary>
    public static readonly TimeSpan Offsets = TimeSpan.FromSeconds(1);

    /// <summary>
    /// How far the clocks of our processes and of the database may be apart: times of one are compared with those of another.
    /// </summary>
    public static readonly TimeSpan Clocks = TimeSpan.FromSeconds(1);

    /// <summary>
    /// The longest from an event's getting its id to its being in the Kafka log: a request hands it to the brokers in its own time.
    /// </summary>
    public static readonly TimeSpan IdToKafka = Request + Produce + Clocks;
}
