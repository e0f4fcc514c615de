"""The line between the control process and the disk process: who may log in, what happened.

``wire`` has the messages, ``engine`` what a disk process remembers, ``server`` is the disk
process's end and ``supervisor`` the control process's. No request of the data path crosses it.
"""
