"""What does each evasion cost an attacker, and does the key test still find the copy?"""
