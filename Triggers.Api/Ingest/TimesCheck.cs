using Microsoft.Extensions.Options;
using Triggers.Api.Errors;
using Triggers.Api.RateLimiting;

namespace Triggers.Api.Ingest;

/// <summary>
/// Refuses events that can't be kept for as long as they ask for, or that come too late. Not a matter of what they say alone: whoever
/// repeats what was accepted is answered as before.
/// </summary>
internal sealed class TimesCheck(IOptions<CapOptions> caps, TimeProvider time)
{
    /// <summary>Refuses those that are to be refused.</summary>
    public void Check(IReadOnlyList<ParsedEvent> events)
    {
        foreach (var e in events)
        {
            if ((e.DeliverAt ?? e.ExpiresAt) is null || e.Errors.Count > 0)
                continue;
            var (now, most) = (time.GetUtcNow(), caps.Value.DeliverAhead);
            if (e.ExpiresAt <= now)
                e.Refuse(ErrorCodes.InvalidSchedule, [new FieldError("/expiresAt", "Has passed.")]);
            else if (e.DeliverAt - now > most)
                e.Refuse(ErrorCodes.InvalidSchedule, [new FieldError("/deliverAt", $"Must come within {most.TotalDays:0.##} days.")]);
        }
    }
}
