using Triggers.Bench;

var options = new Options(args.Skip(1).ToArray());
switch (options.Has("--help") ? "" : args.FirstOrDefault())
{
    case "run":
        return await RunCommand.RunAsync(options);
    case "load":
        return await LoadCommand.RunAsync(options);
    case "neighbours":
        return await Neighbours.RunAsync(options);
    case "ordered":
        return await Ordered.RunAsync(options);
    case "table-costs":
        return await TableCosts.RunAsync(options);
    default:
        Console.WriteLine(string.Join(
            Environment.NewLine, RunCommand.Help, "", LoadCommand.Help, "", Neighbours.Help, "", Ordered.Help, "", TableCosts.Help));
        return args.Length == 0 || options.Has("--help") ? 0 : 2;
}
