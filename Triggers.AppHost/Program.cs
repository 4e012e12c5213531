using Triggers.AppHost;
using Triggers.AppHost.Processes;

if (args is ["--as-nobody", var program, ..])
    return Unix.BecomeAsNobody(program, args[2..]);

var screen = new Screen(Console.Out);
try
{
    if (args.Contains("--help"))
    {
        screen.Say(Foreground.Help);
        return 0;
    }
    var settings = Settings.Read(args);
    return args.Contains("--guard")
        ? await Guard.RunAsync(settings, Console.In, screen)
        : await Foreground.RunAsync(settings, args, screen);
}
catch (Exception e) when (e is AppHostException or UnauthorizedAccessException or IOException)
{
    screen.Say(e.Message);
    return 1;
}
