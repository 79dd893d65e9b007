"""Encoders turn a corpus into `Features`; each answers to one protocol, `features.Encoder`.

features.py   Features (the vectors of a corpus, with tokens where asked) and the protocol
classic.py    ClassicImage (HOG and colour), ClassicText (hashed n-grams): no weights, deterministic
tiny.py       TinyViT and TinyText, small towers from scratch
levels.py     a text tower over characters, subwords, words and the sentence, with gates; subwords.py: its trained pieces
pretrained.py sentences and pictures by transformers, clip.py by open_clip; checkpoint.py and reading.py: what both need
trainable.py  pretrained folders as towers, frozen by block or with adapters.py
sequences.py  frames of videos and tokens as sequences, and the tower over them
translate.py  machine translation, from the hub or a folder, kept on disk line by line
inputs.py     Inputs: what a trainable tower is fed
cache.py      encode(corpus, encoder): computed once, then read from disk
"""
