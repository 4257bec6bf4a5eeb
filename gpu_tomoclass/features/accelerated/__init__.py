"""The feature families and the forest through ``kernels/``: the twin of :mod:`gpu_tomoclass.features.reference`.

A module here launches the kernels of the families that the module of the same name in ``reference`` defines. It knows
devices only as :class:`gpu_tomoclass.device.Device`; see ``docs/devices.md``.
"""
