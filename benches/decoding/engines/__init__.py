"""One engine a file, each with `open_engine(path, threads)`; they run in the environments of their own libraries.

An engine has `generate(rows, new)`, which continues rows of one length greedily without a stop and tells the moments of
the first and of the last new token, and `score(rows)`, the summed negative log-likelihood of each row's ids but the
first, where its library gives logits.
"""
