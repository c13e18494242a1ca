"""Agents from control's side: the channel on which they are told what they shall do, and say what is true."""
