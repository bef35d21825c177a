"""The lab: small Calico clusters in network namespaces, with rules of Calico's shape and real packets.

`Lab` is the way in (tests.lab.lab); everything else is a part of it.
"""
