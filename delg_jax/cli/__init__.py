"""The program `delg`: one thin file per verb."""
