using System.ComponentModel.DataAnnotations;

namespace Triggers.Delivery.Maintenance;

/// <summary>
/// Settings <c>Retention:*</c>: how long history is kept. Whole days (UTC) go, and none with anything in it that is not over.
/// </summary>
public sealed class RetentionOptions : IValidatableObject
{
    private const string Least = "2.00:00:00", Most = "3650.00:00:00";

    /// <summary>Events and their acknowledgements.</summary>
    [Range(typeof(TimeSpan), Least, Most, ErrorMessage = "Retention:Events must be between 2 and 3650 days, as in 30.00:00:00.")]
    public TimeSpan Events { get; set; } = TimeSpan.FromDays(30);

    /// <summary>
    /// Deliveries and their attempts. At least as long as events: a replay of what was not delivered takes an event without deliveries
    /// for one that nobody got.
    /// </summary>
    [Range(typeof(TimeSpan), Least, Most, ErrorMessage = "Retention:Deliveries must be between 2 and 3650 days, as in 30.00:00:00.")]
    public TimeSpan Deliveries { get; set; } = TimeSpan.FromDays(30);

    /// <summary>The rule between them; the ranges are on the settings themselves.</summary>
    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Deliveries < Events)
            yield return new ValidationResult(
                $"Retention:Deliveries ({Deliveries}) must not be less than Retention:Events ({Events}).", [nameof(Deliveries)]);
    }

    /// <summary>For how many days behind today a table is kept.</summary>
    internal int DaysOf(string table) => (int)Math.Ceiling((table is "events" or "acknowledgements" ? Events : Deliveries).TotalDays);
}
