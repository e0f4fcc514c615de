"""Where blocks live: golden images, copy-on-write overlays, the image library.

Read in this order: ``disk`` (the verbs) → ``raw`` (a golden image) → ``qcow2`` with ``cells``
(the layout, pure) → ``overlay`` with ``padded`` and ``durable`` (the copy-on-write disk) →
``parts``, ``making`` and ``files`` with ``locks``, ``live``, ``intent`` and ``notes`` (what an
overlay is on disk) → ``identity`` and ``attach`` (from a DiskSpec to a Disk) → ``library``,
``convert`` and ``recipe`` (versions of images) → ``filters`` (disks around a disk, for tests).

Nothing here awaits, knows SCSI, or talks SQL.
"""
