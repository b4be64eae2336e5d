"""Pages for the terminal dashboard and other programs: numbers, pairing, and what a worker's own server says.

auth     who may read      tokens   what a paired dashboard shows      pairing   how it comes to one
places   where a worker's server is, seen from here and from outside   proxies   what it says, passed on as it comes
"""
