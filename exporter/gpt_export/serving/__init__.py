"""The page that runs an artifact in the browser, served on loopback. Needs no torch and no onnxruntime.

site.py      which URL is which file: a list, made once
packages.py  where the page's npm packages are
answer.py    a request's method, host and headers -> status, headers, byte range
server.py    sockets and streaming
"""
