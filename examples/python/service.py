"""Serves TimeService over gRPC, with health and reflection."""

import argparse
import contextlib
import datetime
import signal
from collections.abc import Iterable, Iterator
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import compile_proto
import zones

compile_proto.ensure_compiled()

from examples.time.v1 import time_service_pb2 as pb  # noqa: E402
from examples.time.v1 import time_service_pb2_grpc as rpc  # noqa: E402


class TimeService(rpc.TimeServiceServicer):
    def ConvertTime(self, request: pb.ConvertTimeRequest, context: grpc.ServicerContext) -> pb.ConvertTimeResponse:
        with invalid_arguments(context):
            local = datetime.datetime.fromisoformat(request.local_time)
            if local.tzinfo:
                raise ValueError("local_time must not have an offset: the zone says it")
            if not request.to_zones:
                raise ValueError("to_zones: name at least one zone")
            local = local.replace(tzinfo=zones.zone(request.zone))
            time = local.astimezone(zones.UTC)
            return pb.ConvertTimeResponse(
                time=time,
                zones={name: zoned(time, name) for name in request.to_zones},
                certainty={
                    0: pb.CERTAINTY_SKIPPED,
                    1: pb.CERTAINTY_EXACT,
                    2: pb.CERTAINTY_AMBIGUOUS,
                }[zones.occurrences(local)],
            )

    def ListClockChanges(
        self, request: pb.ListClockChangesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListClockChangesResponse]:
        with invalid_arguments(context):
            to_year = request.to_year if request.HasField("to_year") else request.from_year
            if not 1970 <= request.from_year <= to_year <= 2099:
                raise ValueError("from_year and to_year must be between 1970 and 2099, in that order")
            zone = zones.zone(request.zone)
        for time in zones.changes(zone, request.from_year, to_year):
            yield pb.ListClockChangesResponse(
                time=time,
                before=zoned(time - zones.SECOND, request.zone),
                after=zoned(time, request.zone),
            )

    def FindMeetingTime(
        self, requests: Iterable[pb.FindMeetingTimeRequest], context: grpc.ServicerContext
    ) -> pb.FindMeetingTimeResponse:
        with invalid_arguments(context):
            date = None
            people: dict[str, str] = {}
            start, end = datetime.datetime.min.replace(tzinfo=zones.UTC), datetime.datetime.max.replace(tzinfo=zones.UTC)
            for person in requests:
                date = date or datetime.date.fromisoformat(person.date)
                begins, ends = zones.working_hours(
                    date,
                    datetime.time.fromisoformat(person.begins),
                    datetime.time.fromisoformat(person.ends),
                    zones.zone(person.zone),
                )
                people[person.name] = person.zone
                start, end = max(start, begins), min(end, ends)
            if not people:
                raise ValueError("name at least one person")
            response = pb.FindMeetingTimeResponse(people=len(people))
            if start < end:
                response.slot.start.FromDatetime(start)
                response.slot.length.FromTimedelta(end - start)
                for name, zone in people.items():
                    response.slot.local_starts[name].CopyFrom(zoned(start, zone))
            return response


def zoned(time: datetime.datetime, zone: str) -> pb.ZonedTime:
    local = time.astimezone(zones.zone(zone))
    return pb.ZonedTime(
        local_time=local.replace(tzinfo=None).isoformat(),
        utc_offset=local.utcoffset(),
        abbreviation=local.tzname(),
        summer_time=bool(local.dst()),
    )


@contextlib.contextmanager
def invalid_arguments(context: grpc.ServicerContext) -> Iterator[None]:
    """Answers a ValueError in its block with INVALID_ARGUMENT."""
    try:
        yield
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listen", default="127.0.0.1:50051", help="host:port; port 0 chooses a free one")
    listen = arguments.parse_args().listen

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    rpc.add_TimeServiceServicer_to_server(TimeService(), server)
    name = pb.DESCRIPTOR.services_by_name["TimeService"].full_name
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in ("", name):
        checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(listen)
    server.start()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: (checks.enter_graceful_shutdown(), server.stop(grace=5)))
    print(f"listening on http://{listen.rsplit(':', 1)[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
