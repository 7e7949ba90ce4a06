"""Interceptors that meter the requests of a gRPC server: `grpc.server(pool, interceptors=[MeterInterceptor("m")])`.

Needs grpcio: `pip install 'wattribute[grpc]'`.
"""

from wattribute.agent.middleware.grpc import AioMeterInterceptor, MeterInterceptor, current

__all__ = ["AioMeterInterceptor", "MeterInterceptor", "current"]
