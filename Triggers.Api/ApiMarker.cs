namespace Triggers.Api;

/// <summary>Names this assembly to those who start it in their own process: both services have a class Program.</summary>
internal sealed class ApiMarker;
