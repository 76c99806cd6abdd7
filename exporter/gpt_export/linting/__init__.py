"""What can be seen in an ONNX GPT without running it: rules, findings, and three ways to write them down.

`gpt_export.linting.run.lint_path` does it. Nothing is imported here, so that the command line can name the consumers
without waiting for onnx.
"""
