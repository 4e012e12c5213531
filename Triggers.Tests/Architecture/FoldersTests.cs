using System.Reflection;
using NetArchTest.Rules;
using Triggers.Api;
using Triggers.Core;
using Triggers.Delivery;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Tests.Architecture;

/// <summary>Arrows between the folders of a project go one way.</summary>
public sealed class FoldersTests
{
    public static TheoryData<Assembly> Products => new(
        typeof(ApiMarker).Assembly, typeof(DeliveryMarker).Assembly,
        typeof(IEventLog).Assembly, typeof(TypeId).Assembly, typeof(Readiness).Assembly);

    [Theory]
    [MemberData(nameof(Products))]
    public void No_folder_uses_one_that_uses_it(Assembly product)
    {
        var root = product.GetName().Name!;
        var folders = product.GetTypes().Select(type => type.Namespace ?? "")
            .Where(name => name.StartsWith(root + ".", StringComparison.Ordinal))
            .Select(name => string.Join('.', name.Split('.').Take(root.Split('.').Length + 1))).Distinct().ToArray();
        var types = Types.InAssembly(product);
        var uses = folders.ToDictionary(
            folder => folder, folder => folders.Where(other => other != folder && Uses(types, folder, other)).ToArray());

        // Whatever uses nothing that is left is no part of a cycle.
        while (uses.Values.Any(others => others.All(other => !uses.ContainsKey(other))))
        {
            foreach (var folder in uses.Where(use => use.Value.All(other => !uses.ContainsKey(other))).Select(use => use.Key).ToArray())
                uses.Remove(folder);
        }

        Assert.Empty(uses.Select(use => $"{use.Key} -> {string.Join(", ", use.Value.Where(uses.ContainsKey))}"));
    }

    private static bool Uses(Types types, string folder, string other) =>
        types.That().ResideInNamespace(folder).And().HaveDependencyOnAny(other).GetTypes().Any();
}
