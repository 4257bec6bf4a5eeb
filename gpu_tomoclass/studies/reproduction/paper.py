"""The paper, and what is to be reached.

L. Staniewicz and P. A. Midgley, "Machine learning as a tool for classifying electron tomographic reconstructions",
Adv. Struct. Chem. Imaging 1 (2015) 9, https://doi.org/10.1186/s40679-015-0010-x. Its pictures are not copied here; ours
show the same subjects, made from our own simulations.
"""

from __future__ import annotations

PAPER = (
    "L. Staniewicz and P. A. Midgley, Machine learning as a tool for classifying electron tomographic reconstructions, "
    "Advanced Structural and Chemical Imaging 1, 9 (2015), doi:10.1186/s40679-015-0010-x"
)

# Number in the paper -> its subject, as we read it; the figures of the report carry these numbers.
FIGURES = {
    1: "the phantom and its grey levels",
    2: "plain reconstruction of the phantom, histogram, thresholds",
    3: "the same after NAD: less speckle, and a halo of middle levels around the shell",
    4: "noise and misalignment: NAD and thresholds",
    5: "missing wedge: NAD and thresholds",
    6: "a real pillar: reconstruction, histogram, thresholds",
    7: "the pillar after NAD: thresholds",
    8: "trained classifier on the plain phantom",
    9: "trained classifier on the noisy, misaligned phantom",
    10: "trained classifier with the missing wedge",
    11: "trained classifier on a plane of the pillar that it was trained on",
    12: "the same classifier on another plane, without further training",
}

# Accuracy and mean IoU that a throw-away prototype of this software reached, with one seed, and which are to be reached
# or beaten: 105 features and scikit-learn's forest, the same kind of scripted operator.
TARGETS: dict[str, dict[str, tuple[float, float | None]]] = {
    "phantom_plain": {
        "otsu": (0.9767, 0.908), "best": (0.9893, 0.946), "nad_otsu": (0.9884, 0.935), "nad_best": (0.9941, 0.969),
        "strokes": (0.992, None), "corrected": (0.9998, 0.999),
    },
    "phantom_noisy": {
        "otsu": (0.9204, 0.765), "best": (0.9551, 0.828), "nad_otsu": (0.9830, 0.914), "nad_best": (0.9907, 0.951),
        "strokes": (0.986, None), "corrected": (0.9984, 0.993),
    },
    "phantom_wedge": {
        "otsu": (0.1699, 0.149), "best": (0.9628, 0.850), "nad_otsu": (0.9591, 0.829), "nad_best": (0.9737, 0.883),
        "strokes": (0.970, None), "corrected": (0.9983, 0.992),
    },
    "pillar": {
        "otsu": (0.854, None), "best": (0.912, None), "nad_otsu": (0.942, 0.838), "nad_best": (0.948, None),
        "corrected": (0.958, 0.869),
    },
    "needle": {"corrected": (0.979, 0.902)},
}  # fmt: skip

# What one sees in ours; a, f, g are panels.
SEEN = {
    2: "All five levels keep their shapes. Where noise crosses a threshold there are specks, and along the shell runs "
    "a rim of middle levels (f), because the grey value passes through all of them on its way to the background.",
    3: "NAD takes the specks out of the inside of the classes. The rim of middle levels along both borders of the "
    "shell stays (f): it is no noise, so no denoising removes it.",
    4: "Before NAD the levels overlap widely; after it the peaks are narrow again and few specks are left. The rim "
    "stays and is rougher (f).",
    5: "The wedge blurs top and bottom, so the shell fades there into the levels of insets and matrix. Thresholds "
    "without NAD merge shell and insets and fail; after NAD they hold inside the classes and fail around the shell.",
    6: "Rubber and silica overlap and leave no valley between them; vacuum is separate but for the fans of the wedge.",
    7: "NAD parts rubber from silica, and small or touching particles grow together or shrink.",
    8: "No specks and no rim: the forest sees edges and surroundings, not grey values alone. What is left are pixels "
    "at borders.",
    9: "Noise and misalignment leave wrong pixels only along borders; no middle level is left around the shell (f).",
    10: "Shell and background are told apart even where the wedge blurs them.",
    11: "Silica is found in grey values that overlap with rubber; wrong pixels lie at the borders of particles.",
    12: "The same forest on a plane that nobody painted on: the errors are of the same kind.",
}
