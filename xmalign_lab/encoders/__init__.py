"""Encoders turn a corpus into `Features`; each answers to one protocol, `features.Encoder`.

features.py   Features (the vectors of a corpus, with tokens where asked) and the protocol
classic.py    ClassicImage (HOG and colour), ClassicText (hashed n-grams): no weights, deterministic
tiny.py       TinyViT and TinyText, small towers from scratch, and the encoders around them
cache.py      encode(corpus, encoder): computed once, then read from disk
"""
