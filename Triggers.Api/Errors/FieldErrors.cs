namespace Triggers.Api.Errors;

/// <summary>
/// The mistakes of one request. Reading ends at the 100th, so that no answer is many times as long as what it answers.
/// </summary>
/// <param name="detail">What the answer says of them together.</param>
internal sealed class FieldErrors(string detail)
{
    /// <summary>The most that are named in one answer.</summary>
    public const int Max = 100;

    private readonly List<FieldError> _errors = [];

    /// <summary>Remembers a mistake.</summary>
    /// <exception cref="ApiException">It is the last one that an answer has room for.</exception>
    public void Add(string pointer, string mistake)
    {
        _errors.Add(new FieldError(pointer, mistake));
        if (_errors.Count == Max)
            throw new ApiException(ErrorCodes.InvalidRequest, $"{detail} Only the first {Max} are named.", _errors);
    }

    /// <summary>Ends the request if there was a mistake.</summary>
    public void ThrowIfAny()
    {
        if (_errors.Count > 0)
            throw new ApiException(ErrorCodes.InvalidRequest, detail, _errors);
    }
}
