"""The pages of the manual that are made from the program itself, so that they cannot differ from it. Text out; only `hook` knows mkdocs."""
