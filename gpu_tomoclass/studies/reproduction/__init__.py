"""The study that this software comes from, rerun: thresholds of grey against a trained classifier, on the same data.

======================  ==========================================================================================
`study.py`              the whole of it: which subjects, which files, one report
`case.py`               one tomogram with its truth: all ways of classifying it, and their scores
`operator.py`           strokes, looks and corrections as a person would make them
`scores.py`             what is counted; the best thresholds that there can be
`phantom.py`            five-level phantom: plain, noisy and misaligned, missing wedge
`pillar.py`             rubber pillar with silica
`needle.py`             a real specimen, given by the user
`paper.py`              which figure of the paper answers to which of ours, and the figures to reach
`panels.py`             pictures
`page.py`               the report
======================  ==========================================================================================
"""
