using System.ComponentModel.DataAnnotations;

namespace Triggers.Delivery.Circuits;

/// <summary>Settings <c>Delivery:Circuit:*</c>: when deliveries to a receiver that fails are held, and for how long.</summary>
public sealed class CircuitOptions
{
    /// <summary>So many failed attempts one after the other open a subscription's circuit.</summary>
    [Range(1, 1000, ErrorMessage = "Delivery:Circuit:ConsecutiveFailures must be between 1 and 1000.")]
    public int ConsecutiveFailures { get; set; } = 10;

    /// <summary>Such a share of failed ones opens it too: 0.5 is every other.</summary>
    [Range(0.01, 1.0, ErrorMessage = "Delivery:Circuit:FailureRatio must be between 0.01 and 1.")]
    public double FailureRatio { get; set; } = 0.5;

    /// <summary>Fewer attempts than that within <see cref="SamplingDuration"/> are too few for a share.</summary>
    [Range(2, 100_000, ErrorMessage = "Delivery:Circuit:MinimumThroughput must be between 2 and 100000.")]
    public int MinimumThroughput { get; set; } = 20;

    /// <summary>How far back the share looks.</summary>
    [Range(typeof(TimeSpan), "00:00:00.5", "1.00:00:00",
        ErrorMessage = "Delivery:Circuit:SamplingDuration must be between 0.5 seconds and 1 day.")]
    public TimeSpan SamplingDuration { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long everything is held until one delivery is tried. Each time that fails it is twice as long.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "1.00:00:00",
        ErrorMessage = "Delivery:Circuit:BreakDuration must be between 0.1 seconds and 1 day.")]
    public TimeSpan BreakDuration { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>The longest such pause.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "1.00:00:00",
        ErrorMessage = "Delivery:Circuit:MaxBreakDuration must be between 0.1 seconds and 1 day.")]
    public TimeSpan MaxBreakDuration { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>A subscription of which every attempt has failed for so long is disabled.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "365.00:00:00",
        ErrorMessage = "Delivery:Circuit:DisableAfter must be between 1 second and 365 days.")]
    public TimeSpan DisableAfter { get; set; } = TimeSpan.FromDays(5);
}
