namespace Triggers.Api.Schemas;

/// <summary>
/// What a request may spend on schemas, counted and not timed, so that the same request is always judged alike. A step is about 50 ns:
/// the whole of it is well below the time of a request.
/// </summary>
/// <param name="bytes">Of data that there are to judge.</param>
internal sealed class Steps(long bytes = 0)
{
    private const long PerRequest = 1_000_000;
    private const long PerByte = 2;

    private long _left = PerRequest + PerByte * bytes;

    /// <summary>Spends some.</summary>
    /// <exception cref="StepsExceededException">There are not as many left.</exception>
    public void Take(long steps)
    {
        // Once it is over it stays so: what is large is not looked at just because it is the last.
        _left = steps > _left ? -1 : _left - steps;
        if (_left < 0)
            throw new StepsExceededException();
    }
}

/// <summary>Schema and data together ask for more work than a request may cost.</summary>
internal sealed class StepsExceededException() : Exception("More steps than a request has.");
