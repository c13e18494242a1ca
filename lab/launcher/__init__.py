"""`causeway lab`: starts the processes of a laboratory, keeps them, shows what they do and judges the result.

Knows the other parts by their commands, their HTTP APIs and the lines that participants write.
"""

from __future__ import annotations
