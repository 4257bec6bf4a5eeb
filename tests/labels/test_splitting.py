"""Touching particles told apart: against spheres of known volume, surface and cut, and the simulator's own spheres."""

from __future__ import annotations

import numpy as np
import pytest
from memory_volume import CountedVolume

from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.labels import measure_classes, measure_particles, splitting
from gpu_tomoclass.studies.simulation.pillar import simulate_sample


def spheres(shape, centres, radii, *, voxel_size=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Label 1 where a voxel's centre lies in a sphere; centres and radii in the unit of the voxel size."""
    axes = [a * v for a, v in zip(np.ogrid[tuple(slice(0, n) for n in shape)], voxel_size, strict=True)]
    found = np.zeros(shape, np.uint8)
    for centre, radius in zip(centres, radii, strict=True):
        found[sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius**2] = 1
    return found


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.8)])
def test_two_spheres_have_their_volumes_surfaces_and_cut(voxel_size):
    """Overlapping balls of radius R and r at distance d: the cut is a disc, the rest are spherical caps."""
    big, small, distance = 14.0, 10.0, 20.0
    centres = [(20.3, 22.1, 18.2), (20.3, 22.1, 18.2 + distance)]
    shape = tuple(int(n / v) for n, v in zip((42, 45, 55), voxel_size, strict=True))
    labels = CountedVolume(spheres(shape, centres, (big, small), voxel_size=voxel_size), voxel_size=voxel_size)
    assert len(measure_particles(labels, value=1)) == 1
    found = measure_particles(labels, value=1, split=True)
    to_cut = (distance**2 + big**2 - small**2) / (2 * distance)
    for i, (radius, height) in enumerate(((big, big - to_cut), (small, small - (distance - to_cut)))):
        volume = 4 / 3 * np.pi * radius**3 - np.pi * height**2 * (3 * radius - height) / 3
        # the watershed cuts along voxels, and near the plane of the cut only: 1 voxel's layer of the disc is 2 %
        assert found.volume[i] == pytest.approx(volume, rel=0.03)
        assert found.surface[i] == pytest.approx(4 * np.pi * radius**2 - 2 * np.pi * radius * height, rel=0.03)
        # one flat face counts for 0.87 to 1.10 of its area, as documented, and its edge is rough
        assert found.contact[i] == pytest.approx(np.pi * (big**2 - to_cut**2), rel=0.2)
    np.testing.assert_allclose(found.neighbour, found.neighbour[0])
    assert found.voxels.sum() == labels.array.sum()


def test_what_touches_only_by_a_slender_neck_is_cut_and_by_a_thick_one_is_not():
    labels = spheres((30, 30, 60), [(15, 15, 15), (15, 15, 36)], (12, 12))
    found = {
        neck: len(measure_particles(CountedVolume(labels), value=1, split=True, neck=neck)) for neck in (0.3, 0.85)
    }
    assert found == {0.3: 1, 0.85: 2}  # the neck is (12^2 - 10.5^2)^(1/2) / 12 = 0.48 of the radius
    rod = np.zeros((9, 9, 40), np.uint8)
    rod[2:7, 2:7, 2:38] = 1
    assert len(measure_particles(CountedVolume(rod), value=1, split=True)) == 1


@pytest.mark.parametrize("shape", [(1, 30, 60), (30, 1, 60)])
def test_one_plane_is_split_in_two_dimensions(shape):
    centres = [(0 if shape[0] == 1 else 15, 15 if shape[1] > 1 else 0, x) for x in (15, 36)]
    found = measure_particles(CountedVolume(spheres(shape, centres, (12, 12))), value=1, split=True)
    assert found.voxels[0] == pytest.approx(found.voxels[1], rel=0.05)
    assert len(found) == 2


def test_the_result_does_not_depend_on_slabs_and_names_every_voxel_once():
    rng = np.random.default_rng(4)
    centres = rng.uniform(0, 40, (30, 3))
    labels = spheres((40, 40, 40), centres, rng.uniform(4, 8, 30))
    labels[labels == 0] = 2
    measured = [measure_classes(CountedVolume(labels), values=[1], split=True, slab_planes=n) for n in (1, 7, None)]
    for other in measured[1:]:
        for name in ("voxels", "centre", "surface", "contact", "touches_border"):
            ours, theirs = (getattr(m.particles[1], name) for m in (measured[0], other))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)  # sums of float32 in another order
    particles = measured[0].particles[1]
    assert particles.voxels.sum() == (labels == 1).sum()
    assert particles.contact.sum() > 0
    whole = measure_particles(CountedVolume(labels), value=1)
    assert len(particles) > len(whole)
    assert particles.surface.sum() == pytest.approx(whole.surface.sum(), rel=1e-5)  # cuts are no surface
    assert measured[0].fraction(1) + measured[0].fraction(2) == pytest.approx(1)


def test_a_sphere_that_the_border_cuts_is_one_particle():
    """Where the volume ends, a particle goes on: half a ball is not split, nor hollow."""
    labels = spheres((20, 40, 40), [(-2, 20, 20)], (15,))
    assert len(measure_particles(CountedVolume(labels), value=1, split=True)) == 1
    assert len(measure_particles(CountedVolume(np.ones((4, 5, 6), np.uint8)), value=1, split=True)) == 1


def test_rules_for_the_border():
    labels = np.zeros((6, 6, 9), np.uint8)
    labels[0, 2, 2] = labels[3, 3, 3] = labels[5, 2, 2] = labels[2, 2, 8] = 1
    counted = {
        rule: measure_particles(CountedVolume(labels), value=1, border=rule) for rule in ("count", "exclude", "half")
    }
    centres = {rule: found.centre[found.counted].tolist() for rule, found in counted.items()}
    assert len(centres["count"]) == 4
    assert centres["exclude"] == [[3, 3, 3]]
    assert centres["half"] == [[0, 2, 2], [3, 3, 3]]
    with pytest.raises(UsageError, match="count, exclude, half"):
        measure_particles(CountedVolume(labels), value=1, border="some")


def test_the_half_rule_counts_each_particle_in_one_part_of_a_volume():
    """Particles of eight parts add up to those of the whole, but for those on edges of the parts."""
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(*[np.arange(6, 60, 8)] * 3), -1).reshape(-1, 3) + rng.uniform(-1.5, 1.5, (343, 3))
    labels = np.pad(spheres((64, 64, 64), centres, np.full(343, 2.5)), 1)
    # Parts share a layer of voxels: the last of the first part is the first of the second.
    halves = (slice(0, 34), slice(33, 66))
    parts = [CountedVolume(labels[z, y, x].copy()) for z in halves for y in halves for x in halves]
    total = {
        rule: sum(measure_particles(part, value=1, border=rule).counted.sum() for part in parts)
        for rule in ("count", "exclude", "half")
    }
    assert len(measure_particles(CountedVolume(labels), value=1)) == 343
    assert (
        abs(total["half"] - 343) <= 6
    )  # 42 lie on an edge of a part, where both of two pieces can touch first faces only
    assert total["exclude"] < 290
    assert total["count"] > 400


def test_impossible_requests_are_refused_before_the_work(monkeypatch):
    labels = CountedVolume(np.ones((4, 5, 6), np.uint8))
    for neck in (0, 1, 1.5):
        with pytest.raises(UsageError, match="share between 0 and 1"):
            measure_particles(labels, value=1, split=True, neck=neck)
    monkeypatch.setattr(splitting, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match=r"apart needs .* 1.0 KB are free.*without --split"):
        measure_particles(labels, value=1, split=True)
    assert not labels.planes_read


def test_spheres_of_a_pillar_of_low_filling():
    """The simulator's touching spheres: most of those that show are found, with their size, and none unsplit."""
    found_of = {False: [], True: []}
    for seed in (0, 4):
        sample = simulate_sample(
            shape=(40, 96, 88),
            diameter=100.0,
            silica_fraction=0.04,
            iterations=1,
            angles=np.array([0.0, 90.0]),
            seed=seed,
        )
        silica, radii = sample.truth == 3, sample.spheres[:, 3]
        places = np.argwhere(silica)
        # A voxel where spheres overlap is that one's in whose power diagram it lies.
        owner = np.argmin([((places - s[:3]) ** 2).sum(axis=1) - s[3] ** 2 for s in sample.spheres], axis=0)
        own = np.bincount(owner, minlength=len(radii))
        shows = own > 2 / 3 * np.pi * radii**3  # half of it; others lie in one another or beyond the pillar
        centres = np.stack([np.bincount(owner, a, len(radii))[shows] for a in places.T], axis=1) / own[shows, None]
        for split, found in found_of.items():
            particles = measure_particles(CountedVolume(silica.astype(np.uint8)), value=1, split=split)
            distance = np.linalg.norm(centres[:, None] - particles.centre[None], axis=2)
            size = particles.diameter[distance.argmin(axis=1)] / np.cbrt(6 / np.pi * own[shows])
            found.extend((distance.min(axis=1) < radii[shows] / 2) & (np.abs(size - 1) < 0.15))
    assert len(found_of[True]) == 18
    assert np.mean(found_of[False]) == 0
    assert np.mean(found_of[True]) > 0.7
