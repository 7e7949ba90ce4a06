"""What the whole node draws: an ACPI power meter (hwmon), or the node's BMC by Redfish or by IPMI (DCMI).

Each reads one meter, as domain `psys`, which is never added to what it contains. (RAPL's own psys zone is read with
the others of RAPL.)
"""
