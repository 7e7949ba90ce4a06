"""Interceptors that meter the requests of a gRPC server: `grpc.server(pool, interceptors=[MeterInterceptor("m")])`.

Needs grpcio: `pip install 'wattribute[grpc]'`.
"""

try:
    from wattribute.agent.middleware.grpc import AioMeterInterceptor, MeterInterceptor, current
except ModuleNotFoundError as error:
    if error.name != "grpc":
        raise
    raise ModuleNotFoundError("wattribute.grpc needs grpcio: pip install 'wattribute[grpc]'", name="grpc") from None

__all__ = ["AioMeterInterceptor", "MeterInterceptor", "current"]
