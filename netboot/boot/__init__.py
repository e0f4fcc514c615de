"""The brain: who is asking, what they get, and why. It imports no protocol.

``firmware.py`` is the table of machines, ``profiles.py`` says whose machine it is, ``plan.py``
decides, ``script.py`` writes that down for iPXE, ``admission.py`` holds the door of the disks,
``explain.py`` and ``timeline.py`` tell people. All of it is called statelessly, several times in
one boot, by whoever needs an answer; so all of it is pure and cheap.
"""
