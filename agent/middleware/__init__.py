"""A meter in front of a server's application: ASGI, WSGI and gRPC. Whatever fails here, the application's answer is
untouched.
"""
