using System.Collections.Concurrent;

namespace Triggers.EventLog;

/// <summary>
/// How far the projection is behind a partition of a log, in events and in the age of the oldest; both 0 when there is none, and partition
/// 0 where the log has none. Reported as it is until it is written anew, or removed because this process can't tell any more.
/// </summary>
internal sealed class LogLags : ConcurrentDictionary<(string Log, int Partition), (long Events, double Seconds)>;
