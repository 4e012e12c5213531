using CsCheck;
using Triggers.Core;

namespace Triggers.Tests.Core;

public class TypeIdTests
{
    private static readonly Gen<Guid> AnyGuid = Gen.Byte.Array[16].Select(bytes => new Guid(bytes, bigEndian: true));

    [Fact]
    public void Text_and_id_are_the_same_thing() =>
        AnyGuid.Sample(id =>
        {
            var text = TypeId.Format("evt", id);
            Assert.Equal(30, text.Length);
            Assert.True(TypeId.TryParse("evt", text, out var back));
            Assert.Equal(id, back);
        });

    [Fact]
    public void Order_of_texts_is_the_order_of_ids() =>
        Gen.Select(AnyGuid, AnyGuid).Sample((a, b) =>
            Assert.Equal(Math.Sign(a.CompareTo(b)), Math.Sign(string.CompareOrdinal(TypeId.Format("evt", a), TypeId.Format("evt", b)))));

    // From the TypeID specification's valid.yml.
    [Theory]
    [InlineData("00000000-0000-0000-0000-000000000000", "prefix_00000000000000000000000000")]
    [InlineData("00000000-0000-0000-0000-000000000001", "prefix_00000000000000000000000001")]
    [InlineData("00000000-0000-0000-0000-000000000020", "prefix_00000000000000000000000010")]
    [InlineData("ffffffff-ffff-ffff-ffff-ffffffffffff", "prefix_7zzzzzzzzzzzzzzzzzzzzzzzzz")]
    [InlineData("0110c853-1d09-52d8-d73e-1194e95b5f19", "prefix_0123456789abcdefghjkmnpqrs")]
    [InlineData("01890a5d-ac96-774b-bcce-b302099a8057", "prefix_01h455vb4pex5vsknk084sn02q")]
    public void Texts_are_those_of_the_specification(string id, string text) =>
        Assert.Equal(text, TypeId.Format("prefix", Guid.Parse(id)));

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("evt_")]
    [InlineData("sub_01h455vb4pex5vsknk084sn02q")]
    [InlineData("evt_01h455vb4pex5vsknk084sn02")]
    [InlineData("evt_01h455vb4pex5vsknk084sn02qq")]
    [InlineData("evt_81h455vb4pex5vsknk084sn02q")]
    [InlineData("evt_01H455VB4PEX5VSKNK084SN02Q")]
    [InlineData("evt_01h455vb4pex5vsknk084sn02l")]
    [InlineData("evt-01h455vb4pex5vsknk084sn02q")]
    public void Anything_else_is_refused(string? text) => Assert.False(TypeId.TryParse("evt", text, out _));

    [Fact]
    public void New_ids_grow()
    {
        var ids = Enumerable.Range(0, 10_000).Select(_ => TypeId.NewGuid()).ToArray();

        Assert.Equal(ids.Order(), ids);
        Assert.Equal(ids.Length, ids.Distinct().Count());
    }

    [Fact]
    public void New_ids_tell_the_time_and_chance_tells_those_of_two_processes_apart()
    {
        var now = DateTimeOffset.FromUnixTimeMilliseconds(1_764_500_000_123);
        var (newest, newestElsewhere) = (0L, 0L);
        var (here, elsewhere) = (TypeId.NewGuid(now, ref newest), TypeId.NewGuid(now, ref newestElsewhere));

        Assert.Equal((7, 8), (here.Version, here.Variant & 0b1100));
        Assert.Equal(now, TypeId.CreatedAt(here));
        Assert.NotEqual(here, elsewhere);
    }

    /// <summary>
    /// A clock is set back by seconds under a steady load, and again: the time in the ids does not stay ahead of it for ever.
    /// </summary>
    [Fact]
    public void Ids_grow_while_the_clock_goes_back_and_tell_the_time_again_when_it_has_caught_up() =>
        Gen.Int[1, 5_000].Array[1, 4].Sample(steps =>
        {
            var (now, furthest, newest, last) = (DateTimeOffset.UnixEpoch.AddYears(50), DateTimeOffset.MinValue, 0L, Guid.Empty);
            foreach (var step in steps)
            {
                now = now.AddMilliseconds(-step);
                for (var i = 0; i < 6_000; i++)
                {
                    now = now.AddMilliseconds(1);
                    furthest = now > furthest ? now : furthest;
                    var id = TypeId.NewGuid(now, ref newest);
                    Assert.True(id.CompareTo(last) > 0);
                    Assert.InRange(TypeId.CreatedAt(id), furthest, furthest.AddMilliseconds(2));
                    last = id;
                }
                Assert.Equal(now, TypeId.CreatedAt(last));
            }
        }, iter: 20);

    [Fact]
    public void Time_is_in_the_id() =>
        Gen.Long[0, 253_402_300_799_999].Sample(ms =>
        {
            var moment = DateTimeOffset.FromUnixTimeMilliseconds(ms);
            Assert.Equal(moment, TypeId.CreatedAt(TypeId.At(moment)));
            Assert.Equal(moment, TypeId.CreatedAt(TypeId.Add(TypeId.At(moment), 1000)));
        });

    [Fact]
    public void Items_of_a_batch_are_told_apart_by_their_place() =>
        Gen.Select(AnyGuid.Where(id => id.CompareTo(Guid.Parse("ffffffff-ffff-ffff-ffff-000000000000")) < 0), Gen.Int[0, 999])
            .Sample((first, place) =>
            Assert.Equal(place, TypeId.Difference(TypeId.Add(first, place), first)));
}
