"""How much of a profile still fits, counted anew: by nobody's code but this."""


def slices(profile):
    """Of `3g.20gb` the 3."""
    return int(profile.partition("g.")[0].rpartition(".")[2])


def apart(starts, size, taken):
    """How many of these places are free, none of them on another."""
    count, end = 0, 0
    for start in sorted(starts):
        if start >= end and taken.isdisjoint(range(start, start + size)):
            count, end = count + 1, start + size
    return count


def taken_by(instances):
    return {unit for one in instances for unit in range(one["placement"]["start"], one["placement"]["start"] + one["placement"]["size"])}


def left(profile, places, total, instances, all_slices):
    """GPU instances of the profile beside these: room in memory, compute slices, and media engines, which are given once."""
    names = [one["profile"] for one in instances]
    if "+me" in profile and any("+me" in name for name in names):
        return 0
    if "+me.all" in profile and any(not name.endswith("-me") for name in names):
        return 0
    if not profile.endswith("-me") and any("+me.all" in name for name in names):
        return 0
    free_slices = all_slices - sum(slices(name) for name in names)
    return min(total, apart(*places, taken_by(instances)), free_slices // slices(profile))


def left_within(places, total, computes):
    """Compute instances of the profile beside these."""
    return min(total, apart(*places, taken_by(computes)))
