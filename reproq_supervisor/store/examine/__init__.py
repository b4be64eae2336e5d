"""What `doctor` looks at, one module a concern. A check reads, never changes, and yields findings; `store/doctor.py` puts them in order."""
