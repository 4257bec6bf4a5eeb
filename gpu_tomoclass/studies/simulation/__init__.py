"""Simulated tomograms whose truth is known.

==================  ==============================================================
`tilt_series.py`    tilt angles, projection, misalignment, reconstruction
`phantom.py`        a phantom slice as in the paper
`pillar.py`         a rubber pillar with silica; also the sample volume of the demo
`files.py`          both as files
==================  ==============================================================
"""
